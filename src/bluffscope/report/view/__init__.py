"""`bluffscope view`: a page over a folder of runs, served on loopback. It reads small files and writes nothing."""
