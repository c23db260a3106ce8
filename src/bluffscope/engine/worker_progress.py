"""What distant workers report: progress that never runs backwards, each warning once, and the sum of their work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from bluffscope.engine.base import Tally
from bluffscope.engine.worker_process import News, Said
from bluffscope.host.stopwatch import Stopwatch


@dataclass
class Account:
    """Of one worker."""

    pairs: int = 0
    """That it reported as done."""
    finished: int = 0
    """Pairs whose table has come."""
    tally: Tally = field(default_factory=Tally)


@dataclass
class Ledger:
    """Of all workers, those that died included."""

    stopwatch: Stopwatch
    """Counts the seconds of every stage but loading, for which the driver waits itself."""
    advance: Callable[[int], None] | None = None
    """Called with further pairs; there are none before it is set."""
    _accounts: list[Account] = field(default_factory=list[Account])
    _surplus: int = 0
    """Pairs that were reported to the user, and whose worker then died."""
    _said: set[Said] = field(default_factory=set[Said])

    def open(self) -> Account:
        """An account for a new worker."""
        self._accounts.append(Account())
        return self._accounts[-1]

    def heard(self, account: Account, news: News) -> None:
        """A worker tells how it gets on; answers may overtake each other."""
        if news.pairs >= account.pairs:
            self.count(news.pairs - account.pairs)
            for stage, seconds in news.tally.seconds.items():
                if stage != "load":
                    more = seconds - account.tally.seconds.get(stage, 0.0)
                    self.stopwatch.seconds[stage] = self.stopwatch.seconds.get(stage, 0.0) + more
            account.pairs, account.tally = news.pairs, news.tally
        for said in news.said:
            if said not in self._said:  # every worker warns of the same model
                self._said.add(said)
                logging.getLogger(said.logger).log(said.level, "%s", said.message)

    def count(self, pairs: int) -> None:
        """So many pairs are done, perhaps not for the first time."""
        known = min(pairs, self._surplus)
        self._surplus -= known
        if pairs > known and self.advance is not None:
            self.advance(pairs - known)

    def died(self, account: Account) -> None:
        """What a worker had done of shards that did not arrive is done again."""
        self._surplus += account.pairs - account.finished
        account.pairs = account.finished

    def tally(self) -> Tally:
        """What all workers have done together."""
        return sum((account.tally for account in self._accounts), Tally())
