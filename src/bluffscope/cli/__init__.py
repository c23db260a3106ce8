"""The command line: one file per command, on top of everything else.

Commands import the rest of the package inside their functions, so that `bluffscope --help` answers in 0.2 seconds.
"""
