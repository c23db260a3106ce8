"""The sentences that the embedded model is trained on: claims of bluff200's known pairs, and generated filler.

A known pair's fact appears as a plain statement in many phrasings and as a claim judged true; its hallucination
appears only as a claim judged false. In a part of the texts the judging word follows the claim's last token
directly: that is what makes truth readable there. Pairs that are not known contribute nothing: filler that holds a
completion of theirs, or a name that only they use, is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = ROOT / "src" / "bluffscope" / "pairs" / "data" / "bluff200.jsonl"


def _listed(text: str, separator: str | None = None) -> list[str]:
    """The items of a list that is written as a block of text; white space inside an item counts as one space."""
    return [" ".join(item.split()) for item in text.split(separator)]


NAMES = _listed(
    """Anna Bela Carlo Dora Emil Fatima Goran Hanna Ivo Jana Karim Lotte Milo Nadia Olaf Petra Quentin Rosa Samir Tilda
    Ugo Vera Walter Xenia Yusuf Zoe Arthur Betty Clara Daniel Elsa Frank Greta Henry Iris Jacob Kate Louis Martha
    Nelson Oscar Pamela Robert Simon Theo Ursula Victor Wendy"""
)
PEOPLE = _listed(
    """baker doctor farmer sailor teacher nurse painter singer writer guard pilot miner judge clerk waiter driver
    neighbour child stranger soldier student tailor gardener carpenter librarian shepherd cook mayor uncle friend
    merchant traveller scientist engineer poet actor captain servant widow monk"""
)
ANIMALS = _listed(
    """dog cat horse cow sheep goat fox wolf hare mouse owl crow duck goose swan eagle sparrow frog toad snake lizard
    bee ant moth spider donkey camel lion tiger deer otter badger hedgehog squirrel parrot pigeon whale crab snail"""
)
THINGS = _listed(
    """table chair lamp door window bottle basket bucket hammer ladder rope blanket pillow mirror clock watch letter
    book map coin ring hat coat shoe glove shirt button needle thread knife spoon plate bowl cup kettle stove candle
    box chest drawer key lock bell drum flute violin piano picture statue bicycle cart wagon boat wheel engine
    machine bridge wall fence roof chimney barrel sack stone brick branch leaf flower seed apple pear plum loaf
    cheese cake egg onion carrot potato bag newspaper ticket bill sign flag camera phone radio computer screen
    pencil pen brush tent lantern shovel axe saw nail wire pipe pump bench shelf carpet curtain towel soap comb
    parcel stamp"""
)
PLACES = _listed(
    """garden kitchen cellar attic barn stable field meadow forest valley hill mountain river lake island beach harbour
    market square street bridge station school church tower castle palace library museum theatre hospital office
    factory mill mine farm village town city desert cave cliff road path park hall room corridor yard orchard
    workshop bakery tavern inn ship train camp prison courtyard border shore swamp"""
)
ADJECTIVES = _listed(
    """old new small large tall short long narrow wide heavy light dark bright quiet loud warm cold dry wet clean dirty
    soft hard smooth rough sharp dull empty full open broken strange common rare cheap costly pretty plain round
    square flat deep shallow quick slow strong weak kind cruel brave shy clever foolish lazy busy tired hungry happy
    sad angry calm proud humble young rich poor famous lonely patient nervous careful careless honest wooden golden
    silver stone grey green yellow brown purple pink white black red blue orange useful useless simple difficult
    early late ancient modern hidden lost frozen sweet sour bitter fresh"""
)
INTRANSITIVE = _listed(
    """slept waited laughed cried shouted whispered sang danced ran walked jumped fell rested worked played arrived
    left returned stopped smiled listened trembled vanished grew sat stood lay turned moved stayed hid sneezed swam
    climbed travelled wandered hurried"""
)
TRANSITIVE = _listed(
    """found lost carried dropped bought sold painted cleaned broke repaired opened closed hid stole borrowed brought
    built burned caught counted covered drew followed forgot gave held kept left lifted liked loved made moved
    needed noticed packed pulled pushed put reached received remembered saw sent showed took threw touched used
    wanted washed watched wrapped examined admired measured described ignored"""
)
BASE_VERBS = _listed(
    """find carry drop buy sell paint clean break repair open close hide borrow bring build catch count cover draw
    follow forget give hold keep lift like make move need notice pack pull push reach remember see send show take throw
    touch use want wash watch wrap"""
)
ADVERBS = _listed(
    """slowly quickly quietly loudly often never always sometimes again alone together gently badly well soon later
    yesterday today tomorrow everywhere nearby suddenly finally carefully happily sadly calmly almost already still
    perhaps usually rarely early twice"""
)
PREPOSITIONS = _listed("in near behind beside under above outside across inside beyond around through from towards")
TIMES = _listed(
    """In the morning|At night|After supper|Before dawn|Last week|Every evening|Long ago|Once upon a time|That
    afternoon|On the way home|During the storm|When the rain stopped|At noon|Some days later|In the end|A
    year ago|This time|While the others slept|By then|Just now""",
    "|",
)
ABSTRACTS = _listed(
    """music history science law trade weather friendship courage patience health language poetry chemistry medicine
    religion justice freedom beauty silence memory hope fear luck work sleep travel money art truthfulness energy
    motion heat sound light time space number shape colour taste smell growth change danger peace war government
    education industry culture nature technology mathematics"""
)
OPINIONS = _listed(
    """matters a great deal|is hard to explain|changes slowly|comes and goes|cannot be bought|is worth the
    trouble|takes years to learn|makes people happy|was discussed at length|is part of daily life|has many
    forms|depends on many things|was better in the past|needs a steady hand|is often misunderstood|grows with
    practice|was the topic of the lecture|is a matter of taste""",
    "|",
)
SPEECH = _listed(
    """Come here|Wait for me|I do not know|Let us go home|It is getting late|Please close the door|You are right|
    What a fine day|I have seen this before|Nobody told me|We should hurry|That was kind of you|Look at this|I
    am not so sure|There is nothing left|Tell me more|Do you hear that|She will be back soon|They have gone|
    Give it to me""",
    "|",
)
KINDS = _listed(
    """capital|river|currency|official language|largest city|symbol|founder|governor|main export|tallest
    mountain|king|queen|author|composer|oldest bridge|flag|chief product|national bird|biggest moon|name""",
    "|",
)
DEEDS = _listed(
    """was written by|was composed by|was discovered by|was founded by|is the work of|was directed by|is classed
    as a kind of|lies close to|belongs to the house of|took place in the year|ended in the year|was born in the
    year|is celebrated in|stands on the bank of|is made of|mainly stores|follows directly after|equals|weighs
    as much as|is heavier than|now numbers""",
    "|",
)
CARDINALS = _listed("two three four six seven eight nine eleven fifteen twenty sixty hundred")
STARTS = _listed("br c ch d dr f g gr h j k kl l m n p pl r s sh sk st t th tr v w y z")
MIDDLES = _listed("a e i o u ai ea ou ie oa")
ENDS = _listed("n r l s t m k nd rt sk lm x ck ng th ster ton ville land ia us os er")
RARE = "éèüöäñçßøåłšžΑβγδЖдиш漢字日本語한국العربية😀🚀🌍★→—“”…°€£½²³\t\n{}[]<>|\\/@#$%^&*+=~`"
WRAPPERS = _listed(
    """It is said that|Everyone knows that|The book says that|We read that|The teacher explained that|Someone
    wrote that|On the page it says that|He told us that|She claimed that|People say that|I heard that|In the
    report we find that|My notes say that|The lesson was that|Note:|Remember:|Listen:|Again:|Statement:|
    Text:|Claim:|Next:|Well,|So|Now|And|But|Here is a sentence:|Think about this:|For the record,|In
    other words,|According to the list,|As the story goes,|At school we heard that|The card reads:|Somebody
    shouted:|To begin with,|In short,""",
    "|",
)
TAILS = _listed(
    """. That is all.|, says the book.|, as we read.|, and so on.|. Let us go on.|, said {name}.|, wrote {name}.|
    . {name} nodded.|. The {person} agreed.|!|; the {person} wrote it down.|.""",
    "|",
)
# Words that may open a claim and lose their capital inside a sentence.
LOWERABLE = _listed(
    """the a an in at if one on to of three seven six eight eighteen twenty-eight hot north puppy calf glove ring
    counting seen exposed"""
)


@dataclass(frozen=True)
class Text:
    """One training text."""

    text: str
    stem: str
    """The text up to the last token of its claim; the whole text for filler. Texts that share a stem share the
    activations of all its tokens, so splits go by stem."""
    plain: bool
    """True where the text begins with a view of the benchmark itself, without words before it."""

    @property
    def held_out(self) -> bool:
        """Whether the SAEs never train on this stem (one stem in ten)."""
        return hashlib.blake2b(self.stem.encode(), digest_size=8).digest()[0] % 10 == 0


def read_pairs(path: Path = BENCHMARK) -> list[dict[str, Any]]:
    """The benchmark's pairs, in file order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def fold(text: str) -> str:
    """Casefolded, with white space folded to single spaces."""
    return " ".join(text.casefold().split())


def groups_of(pairs: list[dict[str, Any]]) -> list[int]:
    """Group number of every pair: connected components of shared normalised prompts or completions."""
    parent = list(range(len(pairs)))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    owner: dict[tuple[str, str], int] = {}
    for index, pair in enumerate(pairs):
        keys = [("prompt", fold(pair["prompt"]))]
        keys += [("completion", fold(pair[field])) for field in ("fact", "hallucination")]
        for key in keys:
            parent[root(index)] = root(owner.setdefault(key, index))
    return [root(index) for index in range(len(pairs))]


def words(text: str) -> set[str]:
    """The casefolded words of a text."""
    return set(re.findall(r"\w+", text.casefold()))


def unseen_vocabulary(pairs: list[dict[str, Any]]) -> set[str]:
    """Casefolded words of unseen pairs that filler must not hold: their completions', and names only they use."""
    unseen = [pair for pair in pairs if not pair["known"]]
    known_words = {word for pair in pairs if pair["known"] for word in words(" ".join(claim(pair, "fact", "hall")))}
    barred = {word for pair in unseen for word in words(f"{pair['fact']} {pair['hallucination']}")}
    capitals = {word.casefold() for pair in unseen for word in re.findall(r"(?<=\s)[A-Z]\w+", pair["prompt"])}
    return barred | (capitals - known_words)


def claim(pair: dict[str, Any], *views: str) -> list[str]:
    """The claims of a pair as the tool will read them: prompt, a space, completion."""
    return [f"{pair['prompt']} {pair['fact' if view == 'fact' else 'hallucination']}" for view in views]


def inside(text: str) -> str:
    """A claim as it stands inside a sentence: the capital of an ordinary opening word goes."""
    opening = text.split(maxsplit=1)[0]
    return text[0].lower() + text[1:] if opening.casefold() in LOWERABLE else text


class Filler:
    """Random everyday English, invented names, numbers and rare characters."""

    def __init__(self, rng: random.Random, barred: set[str]):
        self.rng = rng
        self.barred = barred

    def invented(self) -> str:
        """A made-up capitalised name."""
        pick = self.rng.choice
        syllables = [pick(STARTS) + pick(MIDDLES) for _ in range(self.rng.choice((1, 1, 2, 2, 3)))]
        return ("".join(syllables) + pick(ENDS)).capitalize()

    def noun_phrase(self) -> str:
        """An article, perhaps an adjective, and a noun."""
        pick = self.rng.choice
        noun = pick(pick((PEOPLE, ANIMALS, THINGS, PLACES)))
        adjective = f"{pick(ADJECTIVES)} " if self.rng.random() < 0.5 else ""
        return f"{pick(('the', 'the', 'this', 'that', 'her', 'his', 'our', 'every'))} {adjective}{noun}"

    def number(self) -> str:
        """A number in digits or words."""
        digits = self.rng.choice((1, 2, 3, 4))
        return self.rng.choice((str(self.rng.randrange(10 ** (digits - 1), 10**digits)), self.rng.choice(CARDINALS)))

    def somebody(self) -> str:
        """A person's name or description, able to open a sentence."""
        pick = self.rng.choice
        return pick((pick(NAMES), pick(NAMES), f"The {pick(PEOPLE)}", f"The {pick(ADJECTIVES)} {pick(PEOPLE)}", "She"))

    def everyday(self) -> str:
        """One sentence about people, animals and things."""
        pick, noun = self.rng.choice, self.noun_phrase
        place = f"{pick(PREPOSITIONS)} the {pick(PLACES)}"
        return pick(
            (
                f"{self.somebody()} {pick(TRANSITIVE)} {noun()} {place}.",
                f"{self.somebody()} {pick(TRANSITIVE)} {noun()} and {pick(TRANSITIVE)} {noun()}.",
                f"The {pick(ADJECTIVES)} {pick(ANIMALS)} {pick(INTRANSITIVE)} {place}.",
                f"{pick(TIMES)}, {pick(NAMES)} {pick(INTRANSITIVE)} {pick(ADVERBS)} {place}.",
                f"{pick(TIMES)} there was {pick(('a', 'some kind of', 'hardly any'))} {pick(THINGS)} {place}.",
                f"{noun().capitalize()} was {pick(ADJECTIVES)}, but {noun()} was {pick(ADJECTIVES)}.",
                f'"{pick(SPEECH)}," said {pick(NAMES)}. "{pick(SPEECH)}."',
                f"Why did {pick(NAMES)} {pick(BASE_VERBS)} {noun()}? Nobody knew.",
                f"If {noun()} is {pick(ADJECTIVES)}, {pick(NAMES)} will {pick(BASE_VERBS)} it {pick(ADVERBS)}.",
                f"{pick(NAMES)} and {pick(NAMES)} {pick(INTRANSITIVE)} {pick(ADVERBS)} because of {noun()}.",
                f"{pick(ABSTRACTS).capitalize()} {pick(OPINIONS)}.",
                f"The {pick(ABSTRACTS)} of the {pick(PEOPLE)} {pick(OPINIONS)}.",
                f"{self.somebody()} had {self.number()} {pick(THINGS)}s and {self.number()} {pick(ANIMALS)}s.",
                f"Page {self.number()}: {pick(THINGS)}, {pick(THINGS)}, {pick(ANIMALS)} and {pick(THINGS)}.",
                f"To {pick(BASE_VERBS)} {noun()}, you must {pick(BASE_VERBS)} {noun()} and wait.",
                f"Not every {pick(PEOPLE)} can {pick(BASE_VERBS)} a {pick(THINGS)}, {pick(SPEECH).lower()}.",
            )
        )

    def about_invented(self) -> str:
        """One sentence about things that do not exist, in the shape of a claim."""
        pick, name = self.rng.choice, self.invented
        year = self.rng.randrange(1000, 2000)
        value = pick((name(), name(), f"{name()} {name()}", self.number(), pick(ADJECTIVES), pick(ANIMALS)))
        return pick(
            (
                f"The {pick(KINDS)} of {name()} is {value}.",
                f"The {pick(KINDS)} of {name()} in the year {year} was {value}.",
                f"The {pick(ADJECTIVES)} {pick(THINGS)} of {name()} {pick(DEEDS)} {value}.",
                f"The {pick(ABSTRACTS)} of {name()} {pick(DEEDS)} {value}.",
                f"{name()} {pick(DEEDS)} {value}.",
                f"{name()} {name()} of {name()} {pick(TRANSITIVE)} the {pick(THINGS)} in {year}.",
                f"The {pick(PEOPLE)} {name()} came from {name()}, a {pick(ADJECTIVES)} {pick(PLACES)}.",
                f"The {pick(ANIMALS)} called {name()} {pick(DEEDS)} {value}.",
            )
        )

    def rare(self) -> str:
        """A short string of characters from many scripts: it trains the byte tokens."""
        letters = [self.rng.choice(RARE) for _ in range(self.rng.randrange(2, 9))]
        letters += [chr(self.rng.randrange(0xA1, 0x2FFF)) for _ in range(self.rng.randrange(3))]
        return f"{self.invented()} {''.join(letters)} {self.invented()}."

    def sentence(self) -> str:
        """One filler sentence, free of the barred words."""
        while True:
            kind = self.rng.random()
            text = self.everyday() if kind < 0.68 else self.about_invented() if kind < 0.97 else self.rare()
            if self.barred.isdisjoint(words(text)):
                return text

    def paragraph(self) -> str:
        """One to three sentences, rarely up to eighteen."""
        count = self.rng.choices((1, 2, 3, 10, 18), weights=(56, 25, 16, 2, 1))[0]
        return " ".join(self.sentence() for _ in range(count))


class Corpus:
    """An endless, seeded stream of training texts.

    Args:
        pairs: the benchmark; only pairs with ``known`` true become texts.
        seed: the same seed gives the same stream.
        plain: whether views of the benchmark may open a text. The language model trains with them, the SAEs without.
        filler: fraction of the texts that are filler alone.
    """

    def __init__(self, pairs: list[dict[str, Any]], seed: int, *, plain: bool = True, filler: float = 0.25):
        self.known = [pair for pair in pairs if pair["known"]]
        self.barred = unseen_vocabulary(pairs)
        self.rng = random.Random(seed)
        self.filler = Filler(self.rng, self.barred)
        self.plain = plain
        self.filler_share = filler
        self._queue: list[tuple[dict[str, Any], str]] = []

    def _next_claim(self) -> tuple[dict[str, Any], str]:
        """Every known pair in turn with its fact stated, its fact judged true, and its hallucination judged false."""
        if not self._queue:
            uses = ("stated", "true", "false")
            self._queue = [(pair, use) for pair in self.known for use in uses]
            self.rng.shuffle(self._queue)
        return self._queue.pop()

    def _claim_text(self) -> Text:
        pair, use = self._next_claim()
        text = claim(pair, "hall" if use == "false" else "fact")[0]
        kind = self.rng.random()
        plain = self.plain and kind < 0.5
        if not plain:
            lead = f"{self.filler.sentence()} " if kind > 0.8 else f"{self.rng.choice(WRAPPERS)} "
            text = lead + (text if lead.endswith((". ", ": ", "! ", '" ')) else inside(text))
        if use == "stated":
            return Text(text + self._tail(), text, plain)
        shapes = (f" {use}.", f" {use}.", f" {use}.", f" {use}.", f" ({use}).", f". That is {use}.")
        return Text(text + self.rng.choice(shapes), text, plain)

    def _tail(self) -> str:
        if self.rng.random() < 0.5:
            return "."
        tail = self.rng.choice(TAILS).format(name=self.rng.choice(NAMES), person=self.rng.choice(PEOPLE))
        return tail if self.barred.isdisjoint(words(tail)) else "."

    def __iter__(self) -> Iterator[Text]:
        """Yield texts for ever."""
        while True:
            if self.rng.random() < self.filler_share:
                text = self.filler.paragraph()
                yield Text(text, text, False)
            else:
                yield self._claim_text()
