"""Write bluff200, the bundled benchmark: 200 counterbalanced pairs in four domains.

Run ``python tools/make_benchmark.py`` from the repository root. The output is a function of the tables below.

A table maps a relation, written ``family: relation``, to its groups. A group is two or three rows of
``(complexity, prompt, fact, source)``, and the hallucination of a row is the fact of the next row, the last
row taking the first one's. So each completion of a group is right once and wrong once, and its text says nothing about
the label. A completion belongs to one group of the whole set: cross-validation by group then never sees it twice.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DEFAULT_PATH = Path(__file__).resolve().parents[1] / "src/bluffscope/pairs/data/bluff200.jsonl"
UNSEEN_PAIRS = range(10, 15)
"""How many of a domain's 50 pairs may be unseen (``known`` false), so that 36 to 40 are known."""

Row = tuple[int, str, str, str]
"""Complexity (1 to 10), prompt, fact, and where the fact can be checked."""
Table = dict[str, list[list[Row]]]

EB, MW = "Encyclopaedia Britannica, ", "Merriam-Webster, "

# fmt: off
ENTITY: Table = {
    "place: capital": [
        [(1, "The capital of France is", "Paris", EB + "'Paris'"),
         (1, "The capital of Italy is", "Rome", EB + "'Rome'")],
        [(1, "The capital of Japan is", "Tokyo", EB + "'Tokyo'"),
         (2, "The capital of South Korea is", "Seoul", EB + "'Seoul'"),
         (3, "The capital of Vietnam is", "Hanoi", EB + "'Hanoi'")],
        [(3, "The capital of Kenya is", "Nairobi", EB + "'Nairobi'"),
         (4, "The capital of Uganda is", "Kampala", EB + "'Kampala'")],
    ],
    "place: river": [
        [(2, "The Houses of Parliament in London stand on the bank of the river", "Thames",
          EB + "'Houses of Parliament'"),
         (2, "The Louvre in Paris stands on the bank of the river", "Seine", EB + "'Louvre Museum'")],
        [(3, "The river that flows through both Vienna and Budapest is the", "Danube", EB + "'Danube River'"),
         (4, "The river that flows through both Basel and Cologne is the", "Rhine", EB + "'Rhine River'")],
    ],
    "letters: author": [
        [(2, "The novel Pride and Prejudice was written by", "Jane Austen", EB + "'Pride and Prejudice'"),
         (4, "The novel Middlemarch was written by", "George Eliot", EB + "'Middlemarch'")],
        [(2, "The novel War and Peace was written by", "Leo Tolstoy", EB + "'War and Peace'"),
         (5, "The play The Cherry Orchard was written by", "Anton Chekhov", EB + "'The Cherry Orchard'")],
        [(3, "The fictional detective Hercule Poirot was created by", "Agatha Christie", EB + "'Hercule Poirot'"),
         (5, "The fictional detective Philip Marlowe was created by", "Raymond Chandler", EB + "'Philip Marlowe'")],
    ],
    "arts: painter": [
        [(3, "The painting The Night Watch is the work of", "Rembrandt", "Rijksmuseum, object SK-C-5"),
         (3, "The painting Girl with a Pearl Earring is the work of", "Vermeer", "Mauritshuis, inventory no. 670")],
        [(3, "The painting Guernica is the work of", "Pablo Picasso", "Museo Reina Sofia, collection entry 'Guernica'"),
         (4, "The painting The Persistence of Memory is the work of", "Salvador Dali",
          "MoMA, collection entry 'The Persistence of Memory'")],
    ],
    "arts: composer": [
        [(3, "The opera The Magic Flute was composed by", "Mozart", "Koechel catalogue, K. 620"),
         (4, "The opera Aida was composed by", "Verdi", EB + "'Aida'"),
         (5, "The opera Parsifal was composed by", "Wagner", EB + "'Parsifal'")],
        [(3, "The violin concertos known as The Four Seasons were composed by", "Vivaldi", EB + "'The Four Seasons'"),
         (4, "The oratorio Messiah, with its Hallelujah chorus, was composed by", "Handel",
          "Handel works catalogue, HWV 56")],
    ],
    "pioneer: discoverer": [
        [(5, "Titan, the largest moon of Saturn, was discovered by", "Christiaan Huygens", EB + "'Titan (astronomy)'"),
         (4, "The planet Uranus was discovered by", "William Herschel", EB + "'Uranus'")],
        [(5, "The dwarf planet Pluto was discovered by", "Clyde Tombaugh", EB + "'Pluto'"),
         (7, "The dwarf planet Ceres was discovered by", "Giuseppe Piazzi", EB + "'Ceres'")],
        [(6, "The neutron was discovered by", "James Chadwick", "Nobel Prize in Physics 1935, citation"),
         (7, "The positron was discovered by", "Carl Anderson", "Nobel Prize in Physics 1936, citation")],
    ],
    "pioneer: founder": [
        [(2, "The software company Microsoft was co-founded in 1975 by", "Bill Gates", EB + "'Microsoft Corporation'"),
         (2, "The computer company Apple was co-founded in 1976 by", "Steve Jobs", EB + "'Apple Inc.'")],
        [(5, "The religious order of the Jesuits was founded by", "Ignatius of Loyola", EB + "'Jesuit'"),
         (6, "The Order of Friars Minor was founded by", "Francis of Assisi", EB + "'Franciscan'")],
    ],
    "element: symbol": [
        [(2, "The chemical symbol for gold is", "Au", "IUPAC Periodic Table, element 79"),
         (3, "The chemical symbol for silver is", "Ag", "IUPAC Periodic Table, element 47")],
        [(3, "The chemical symbol for copper is", "Cu", "IUPAC Periodic Table, element 29"),
         (2, "The chemical symbol for iron is", "Fe", "IUPAC Periodic Table, element 26")],
        [(3, "The chemical symbol for sodium is", "Na", "IUPAC Periodic Table, element 11"),
         (3, "The chemical symbol for potassium is", "K", "IUPAC Periodic Table, element 19")],
    ],
    "nation: currency": [
        [(1, "The currency of Japan is the", "yen", "ISO 4217, code JPY"),
         (3, "The currency of South Korea is the", "won", "ISO 4217, code KRW")],
        [(2, "The currency of India is the", "rupee", "ISO 4217, code INR"),
         (2, "The currency of Russia is the", "ruble", "ISO 4217, code RUB")],
    ],
    "nation: language": [
        [(2, "The official language of Brazil is", "Portuguese", "Constitution of Brazil, Article 13"),
         (2, "The official language of Cuba is", "Spanish", "Constitution of Cuba (2019), Article 2")],
        [(3, "The official language of Iran is", "Persian", "Constitution of Iran, Article 15"),
         (2, "The official language of Egypt is", "Arabic", "Constitution of Egypt (2014), Article 2")],
    ],
}

TEMPORAL: Table = {
    "year: event": [
        [(2, "The first crewed Moon landing took place in the year", "1969",
          "NASA, Apollo 11 mission overview (20 July)"),
         (1, "The Second World War ended in the year", "1945", EB + "'World War II'")],
        [(2, "The Berlin Wall fell in the year", "1989", EB + "'Berlin Wall'"),
         (3, "The October Revolution in Russia took place in the year", "1917", EB + "'Russian Revolution'")],
        [(3, "The Bastille prison in Paris was stormed in the year", "1789", EB + "'Bastille' (14 July)"),
         (2, "The United States Declaration of Independence was adopted in the year", "1776",
          "US National Archives, 'Declaration of Independence'")],
        [(2, "Christopher Columbus first reached the Americas in the year", "1492", EB + "'Christopher Columbus'"),
         (3, "The Battle of Hastings was fought in the year", "1066", EB + "'Battle of Hastings'")],
        [(2, "The ocean liner Titanic sank in the year", "1912", EB + "'Titanic' (15 April)"),
         (2, "The First World War began in the year", "1914", EB + "'World War I'")],
        [(4, "The Great Fire of London broke out in the year", "1666", EB + "'Great Fire of London'"),
         (5, "The Spanish Armada sailed against England in the year", "1588", EB + "'Armada'"),
         (5, "The Gunpowder Plot against King James was foiled in the year", "1605", EB + "'Gunpowder Plot'")],
    ],
    "period: century": [
        [(5, "The century AD in which Vesuvius buried Pompeii was the", "first", EB + "'Pompeii' (AD 79)"),
         (6, "The century AD in which the last Western Roman emperor was deposed was the", "fifth",
          EB + "'Romulus Augustulus' (AD 476)")],
        [(5, "The century AD in which Hadrian's Wall was built was the", "second",
          EB + "'Hadrian's Wall' (from AD 122)"),
         (5, "The century AD in which the Black Death first ravaged Europe was the", "fourteenth",
          EB + "'Black Death' (from 1347)")],
    ],
    "period: decade": [
        [(6, "In the twentieth century, the decade of the Wall Street Crash was the", "third",
          "Federal Reserve History, 'Stock Market Crash of 1929'"),
         (6, "In the twentieth century, the decade of the first human spaceflight was the", "seventh",
          EB + "'Yuri Gagarin' (12 April 1961)")],
    ],
    "month: holiday": [
        [(2, "Bastille Day falls in the month of", "July", EB + "'Bastille Day' (14th)"),
         (1, "Halloween falls in the month of", "October", EB + "'Halloween' (31st)")],
        [(1, "Valentine's Day falls in the month of", "February", EB + "'Valentine's Day' (14th)"),
         (2, "Saint Patrick's Day falls in the month of", "March", EB + "'St. Patrick's Day' (17th)")],
        [(2, "Thanksgiving in the United States falls in the month of", "November",
          "United States Code, title 5, section 6103"),
         (5, "India celebrates its Republic Day in the month of", "January", EB + "'Republic Day' (India, 26th)")],
        [(3, "Father's Day in the United States falls in the month of", "June",
          "United States Code, title 36, section 109"),
         (4, "India celebrates its Independence Day in the month of", "August",
          EB + "'Independence Day' (India, 15th)"),
         (1, "New Year's Eve falls in the month of", "December", "Gregorian calendar: day 31 of its last month")],
    ],
    "weekday: custom": [
        [(1, "Easter is celebrated on a", "Sunday", EB + "'Easter'"),
         (2, "Thanksgiving in the United States is celebrated on a", "Thursday",
          "United States Code, title 5, section 6103 (weekday rule)")],
        [(3, "Labor Day in the United States falls on a", "Monday",
          "United States Code, title 5, section 6103 (first one in September)"),
         (3, "Presidential elections in the United States are held on a", "Tuesday",
          "United States Code, title 3, sections 1 and 21")],
        [(4, "In the Roman Rite, Lent begins on a", "Wednesday",
          "Universal Norms on the Liturgical Year and the Calendar, no. 28"),
         (4, "In Islam, the main weekly congregational prayer is held on a", "Friday", EB + "'jumah'")],
    ],
    "order: rank": [
        [(2, "The first human in space was", "Yuri Gagarin", EB + "'Yuri Gagarin'"),
         (1, "The first human to walk on the Moon was", "Neil Armstrong", "NASA, Apollo 11 mission overview")],
        [(1, "The first President of the United States was", "George Washington",
          EB + "'presidents of the United States', no. 1"),
         (3, "The sixteenth President of the United States was", "Abraham Lincoln",
          EB + "'presidents of the United States', no. 16")],
    ],
    "order: neighbour": [
        [(6, "The British monarch who directly preceded Queen Victoria was", "William IV",
          EB + "'William IV' (reigned 1830 to 1837)"),
         (5, "The British monarch who directly succeeded Queen Victoria was", "Edward VII",
          EB + "'Edward VII' (reigned from 1901)")],
        [(6, "The Roman emperor who directly succeeded Augustus was", "Tiberius",
          EB + "'Tiberius' (reigned AD 14 to 37)"),
         (7, "The Roman emperor who directly preceded Claudius was", "Caligula",
          EB + "'Caligula' (reigned AD 37 to 41)")],
    ],
    "era: geology": [
        [(5, "The geological period that directly follows the Triassic is the", "Jurassic",
          "International Chronostratigraphic Chart, Mesozoic Era"),
         (8, "The geological period directly before the Carboniferous is the", "Devonian",
          "International Chronostratigraphic Chart, base of the Carboniferous")],
        [(5, "The geological period in which Tyrannosaurus rex lived is the", "Cretaceous", EB + "'tyrannosaur'"),
         (8, "The geological period directly after the Carboniferous is the", "Permian",
          "International Chronostratigraphic Chart, top of the Carboniferous")],
    ],
    "era: dynasty": [
        [(6, "The Chinese dynasty that replaced the Yuan in 1368 was the", "Ming", EB + "'Ming dynasty'"),
         (5, "The Chinese dynasty that ended in 1912 was the", "Qing", EB + "'Qing dynasty'")],
        [(3, "King Henry VIII of England belonged to the House of", "Tudor", EB + "'House of Tudor'"),
         (5, "King Charles I of England belonged to the House of", "Stuart", EB + "'House of Stuart'")],
    ],
}

LOGICAL: Table = {
    "arithmetic: operation": [
        [(1, "Seven plus six equals", "thirteen", "Arithmetic: 7 + 6 = 13"),
         (1, "Nine plus two equals", "eleven", "Arithmetic: 9 + 2 = 11")],
        [(2, "Eighteen divided by two equals", "nine", "Arithmetic: 18 / 2 = 9"),
         (3, "Twenty-eight divided by four equals", "seven", "Arithmetic: 28 / 4 = 7")],
    ],
    "arithmetic: story": [
        [(3, "Six boxes with five pens each hold a number of pens equal to", "thirty", "Arithmetic: 6 x 5 = 30"),
         (3, "Three rows with five seats each have a number of seats equal to", "fifteen", "Arithmetic: 3 x 5 = 15")],
        [(5, "A bus with nine riders lets off four and takes on twelve, so its riders now number", "seventeen",
          "Arithmetic: 9 - 4 + 12 = 17"),
         (5, "Ann has ten apples, eats two and picks twelve more, so her apples now number", "twenty",
          "Arithmetic: 10 - 2 + 12 = 20")],
    ],
    "number: sequence": [
        [(3, "The doubling sequence one, two, four, eight continues with", "sixteen", "Arithmetic: 8 x 2 = 16"),
         (3, "The sequence ten, twenty, thirty, rising in equal steps, continues with", "forty",
          "Arithmetic: 30 + 10 = 40")],
        [(4, "In the English alphabet, the letter two places after K is", "M", "English alphabet: K, L, M"),
         (6, "In the English alphabet, the letter three places before T is", "Q", "English alphabet: Q, R, S, T")],
    ],
    "number: property": [
        [(5, "The number 29 is", "prime", "Divisors of 29: 1 and 29 only (OEIS A000040)"),
         (6, "The number 51 is", "composite", "Factorisation: 51 = 3 x 17 (OEIS A002808)")],
        [(3, "The sum of 13 and 9 is a number that is", "even", "Parity: 13 + 9 = 22 = 2 x 11"),
         (3, "The product of 7 and 5 is a number that is", "odd", "Parity: 7 x 5 = 35 = 2 x 17 + 1")],
    ],
    "measure: count": [
        [(4, "The number of months in five years is", "sixty", "Calendar: 5 x 12 = 60"),
         (4, "The number of months in a year and a half is", "eighteen", "Calendar: 12 + 6 = 18")],
        [(2, "The number of days in two weeks is", "fourteen", "Calendar: 2 x 7 = 14"),
         (3, "The number of years in eight decades is", "eighty", "Definition of decade: 8 x 10 = 80")],
        [(2, "The number of sides of a hexagon is", "six", MW + "'hexagon'"),
         (2, "The number of sides of an octagon is", "eight", MW + "'octagon'")],
    ],
    "measure: time": [
        [(3, "The second month after February is", "April", "Gregorian calendar: months 2 + 2 = 4"),
         (2, "The month right before June is", "May", "Gregorian calendar: months 6 - 1 = 5")],
        [(3, "Six hours after six in the morning comes", "noon", "Clock: 06:00 + 6 h = 12:00"),
         (3, "Six hours after six in the evening comes", "midnight", "Clock: 18:00 + 6 h = 24:00")],
    ],
    "analogy: pair": [
        [(2, "Hot is to cold as up is to", "down", MW + "'up' (antonym)"),
         (2, "North is to south as right is to", "left", MW + "'right' (antonym)")],
        [(2, "Puppy is to dog as kitten is to", "cat", MW + "'kitten'"),
         (3, "Calf is to cow as foal is to", "horse", MW + "'foal'")],
        [(3, "Eye is to sight as ear is to", "hearing", MW + "'ear'"),
         (3, "Tongue is to taste as nose is to", "smell", MW + "'nose'")],
        [(2, "Glove is to hand as sock is to", "foot", MW + "'sock'"),
         (2, "Ring is to finger as hat is to", "head", MW + "'hat'")],
    ],
    "relation: kinship": [
        [(5, "If Ann is Tom's daughter and Leo is Ann's boy, then Tom is Leo's", "grandfather", MW + "'grandfather'"),
         (5, "If Eva is Max's daughter and Ben is Eva's boy, then Ben is Max's", "grandson", MW + "'grandson'")],
        [(5, "If Mary is Paul's sister and Nina is Paul's daughter, then Mary is Nina's", "aunt", MW + "'aunt'"),
         (6, "If Sara's mother and Lena's mother are sisters, then Sara is Lena's", "cousin", MW + "'cousin'")],
    ],
    "relation: direction": [
        [(4, "A hiker facing north turns right by ninety degrees and now faces", "east",
          "Compass rose: 0 + 90 = 90 degrees"),
         (4, "A hiker facing north turns left by ninety degrees and now faces", "west",
          "Compass rose: 0 - 90 = 270 degrees (mod 360)")],
        [(5, "A pilot heading east turns right by ninety degrees and now heads", "south",
          "Compass rose: 90 + 90 = 180 degrees"),
         (5, "A pilot heading east turns left by ninety degrees and now heads", "north",
          "Compass rose: 90 - 90 = 0 degrees")],
    ],
    "inference: comparison": [
        [(5, "Ann beat Ben in a race and Ben beat Cal, so relative to Cal at the finish Ann was", "ahead",
          "Transitivity of order: Ann before Ben before Cal"),
         (6, "Dan lost a race to Eve and Eve lost it to Fay, so relative to Fay at the finish Dan was", "behind",
          "Transitivity of order: Fay before Eve before Dan")],
        [(4, "A red box weighs three kilos and a blue box five, so compared with the blue box the red box weighs",
          "less", "Comparison: 3 kg < 5 kg"),
         (4, "A stone weighs nine pounds and a brick four, so compared with the brick the stone weighs", "more",
          "Comparison: 9 lb > 4 lb")],
    ],
    "inference: validity": [
        [(7, "The inference from 'all cats are animals and all animals breathe' to 'all cats breathe' is", "valid",
          "Aristotelian syllogistic, mood Barbara"),
         (9, "The inference from 'some birds swim and some birds sing' to 'some swimming birds sing' is", "fallacious",
          "Aristotelian syllogistic: two particular premises yield nothing")],
        [(6, "Given that all robins are birds and all birds have wings, the claim that robins have wings is", "true",
          "First-order logic: all R are B, all B have W, hence all R have W"),
         (6, "Given that all the keys here are brass, the claim that one key here is wooden is", "false",
          "First-order logic: all K are B, B excludes W, hence K and W are disjoint")],
    ],
}

ADVERSARIAL: Table = {
    "geography: capital": [
        [(3, "The capital of Australia is", "Canberra", EB + "'Canberra'"),
         (2, "The Australian city famous for its sail-shaped opera house is", "Sydney",
          "UNESCO World Heritage List, no. 166")],
        [(3, "The capital of Turkey is", "Ankara", "Constitution of Turkey, Article 3"),
         (3, "The most populous city of Turkey is", "Istanbul", EB + "'Istanbul'")],
        [(3, "The capital of Canada is", "Ottawa", EB + "'Ottawa'"),
         (3, "The most populous city of Canada is", "Toronto", "Statistics Canada, 2021 Census of Population")],
    ],
    "geography: location": [
        [(8, "The US state that lies closest to Africa is", "Maine",
          "Great-circle distances: Quoddy Head to El Beddouza, Morocco, 5,076 km; Florida to Africa over 6,500 km"),
         (4, "The US state that lies closest to Cuba is", "Florida", EB + "'Straits of Florida'")],
        [(6, "The ruins of ancient Troy lie in present-day", "Turkey", "UNESCO World Heritage List, no. 849"),
         (4, "The ruins of ancient Sparta lie in present-day", "Greece", EB + "'Sparta'")],
    ],
    "superlative: nature": [
        [(5, "The hottest planet of the Solar System is", "Venus", "NASA Planetary Fact Sheet, mean temperature"),
         (3, "The planet closest to the Sun is", "Mercury", "NASA Planetary Fact Sheet, distance from Sun")],
        [(8, "Measured from the center of the Earth, the highest summit is that of", "Chimborazo",
          "NOAA National Ocean Service, 'What is the highest point on Earth as measured from Earth's center?'"),
         (2, "Measured from sea level, the highest summit is that of", "Everest", EB + "'Mount Everest'")],
        [(7, "Counting polar deserts, the largest desert on Earth is the", "Antarctic",
          EB + "'Antarctica' (14 million square km, a cold desert) and 'Sahara' (9 million)"),
         (4, "The largest hot desert on Earth is the", "Sahara", EB + "'Sahara'")],
    ],
    "attribution: person": [
        [(7, "The phrase survival of the fittest was coined by", "Herbert Spencer",
          "Spencer, 'Principles of Biology' (1864)"),
         (2, "The book On the Origin of Species was written by", "Charles Darwin", EB + "'On the Origin of Species'")],
        [(8, "The first voyage around the world ended in 1522 under the command of", "Elcano",
          EB + "article on Juan Sebastian Elcano (del Cano)"),
         (5, "The commander who set out from Spain in 1519 and was killed at Mactan was", "Magellan",
          EB + "'Ferdinand Magellan'")],
        [(4, "In the Bible, the animals were taken aboard the ark by", "Noah", "Genesis 6:19-20 and 7:2-9"),
         (3, "In the Bible, the Ten Commandments were received on Mount Sinai by", "Moses", "Exodus 31:18")],
        [(6, "The Star Wars film The Empire Strikes Back was directed by", "Irvin Kershner",
          "AFI Catalog of Feature Films, 'The Empire Strikes Back' (1980)"),
         (3, "The original Star Wars film of 1977 was directed by", "George Lucas",
          "AFI Catalog of Feature Films, 'Star Wars' (1977)")],
    ],
    "trick: number": [
        [(6, "In the Gregorian calendar, the number of months with at least 28 days is", "twelve",
          "Gregorian calendar: month lengths are 28 to 31 days"),
         (5, "In the Gregorian calendar, the number of months with fewer than 30 days is", "one",
          "Gregorian calendar: February alone")],
        [(8, "A bat and a ball cost 110 cents in all and the bat costs 100 more, so the ball's price in cents is",
          "five", "Arithmetic: (110 - 100) / 2 = 5; Frederick (2005), Cognitive Reflection Test"),
         (7, "A pen and a pad cost 110 cents in all and the pad costs 90 more, so the pen's price in cents is", "ten",
          "Arithmetic: (110 - 90) / 2 = 10")],
        [(8, "A patch of lily pads doubles daily and covers a pond on day 30, so it covered half the pond on day", "29",
          "Halving once: 30 - 1 = 29; Frederick (2005), Cognitive Reflection Test"),
         (5, "A wall that rises by the same height daily is done after day 30, so it was half done after day", "15",
          "Linear growth: 30 / 2 = 15")],
        [(9, "A car drives out at 60 km/h and back the same way at 30 km/h, so its average speed in km/h is", "40",
          "Harmonic mean: 2 x 60 x 30 / (60 + 30) = 40"),
         (7, "A car drives one hour at 60 km/h and one hour at 30 km/h, so its average speed in km/h is", "45",
          "Mean over equal times: (60 + 30) / 2 = 45")],
        [(7, "At the finish line a sprinter passes the runner in second place, so the medal she gets is", "silver",
          "Ranking: who passes the second of a race is second"),
         (4, "At the finish line a sprinter passes the runner in the lead, so the medal she gets is", "gold",
          "Ranking: who passes the leader of a race is first")],
    ],
    "nature: substance": [
        [(4, "The gas that makes up most of Earth's atmosphere is", "nitrogen",
          "NASA Earth Fact Sheet, atmospheric composition"),
         (6, "The most abundant element by mass in Earth's crust is", "oxygen",
          "CRC Handbook of Chemistry and Physics, 'Abundance of Elements in the Earth's Crust and in the Sea'")],
        [(4, "The writing core of an ordinary pencil is made of clay and", "graphite", EB + "'pencil'"),
         (4, "The heavy metal with the chemical symbol Pb is", "lead", "IUPAC Periodic Table, element 82")],
        [(5, "The hump of a camel mainly stores", "fat", EB + "'camel'"),
         (3, "The swollen stem of a barrel cactus mainly stores", "water", EB + "'cactus'")],
    ],
    "nature: appearance": [
        [(4, "Seen outside the body, blood drawn from a human vein is", "red", EB + "'blood' (haemoglobin)"),
         (7, "Exposed to oxygen, the blood of a horseshoe crab is", "blue", EB + "'hemocyanin'")],
        [(7, "Earth is closest to the Sun while the Northern Hemisphere has", "winter",
          "US Naval Observatory, 'Earth's Seasons': perihelion in early January"),
         (7, "Earth is farthest from the Sun while the Northern Hemisphere has", "summer",
          "US Naval Observatory, 'Earth's Seasons': aphelion in early July")],
    ],
    "class: animal": [
        [(3, "A spider is classed as an", "arachnid", EB + "'spider' (order Araneae)"),
         (2, "A dragonfly is classed as an", "insect", EB + "'dragonfly' (order Odonata)")],
        [(2, "A dolphin is classed as a", "mammal", EB + "'dolphin' (suborder Odontoceti)"),
         (4, "A seahorse is classed as a", "fish", EB + "'sea horse' (genus Hippocampus)")],
        [(4, "A koala is classed as a", "marsupial", EB + "'koala' (order Diprotodontia)"),
         (5, "A giant panda is classed as a", "bear", EB + "'giant panda' (family Ursidae)")],
    ],
}
# fmt: on

DOMAINS: dict[str, Table] = {
    "entity": ENTITY,
    "temporal": TEMPORAL,
    "logical": LOGICAL,
    "adversarial": ADVERSARIAL,
}


class Group(NamedTuple):
    """Pairs whose facts and hallucinations are the same strings."""

    family: str
    """Relations that resemble each other; each family gives one group to the unseen side."""
    relation: str
    """What the prompts of the group ask for."""
    rows: list[Row]
    """The group's pairs; each fact is the hallucination of the row before."""


def groups_of(table: Table) -> list[Group]:
    """Give the groups of one domain, in the order of its table."""
    return [Group(*key.split(": "), rows) for key, groups in table.items() for rows in groups]


def unseen_of(groups: list[Group]) -> list[Group]:
    """Choose the groups with ``known`` false: one of each family, whose relation also has a known group.

    The choice is by hash of the prompts, with the first salt that leaves the right number of pairs.
    """
    sizes = Counter(group.relation for group in groups)
    families = dict.fromkeys(group.family for group in groups)
    for salt in range(1000):

        def rank(group: Group, salt: int = salt) -> str:
            return hashlib.sha256(f"{salt} {group.rows[0][1]}".encode()).hexdigest()

        chosen = [min((g for g in groups if g.family == f and sizes[g.relation] > 1), key=rank) for f in families]
        if sum(len(group.rows) for group in chosen) in UNSEEN_PAIRS:
            return chosen
    raise ValueError(f"expected a choice of {UNSEEN_PAIRS} unseen pairs, found none: change the families")


def records() -> Iterator[dict[str, str | int | bool]]:
    """Yield the 200 pairs, fields in the order of the file."""
    for domain, table in DOMAINS.items():
        groups = groups_of(table)
        unseen = unseen_of(groups)
        number = 0
        for group in groups:
            for row, following in zip(group.rows, group.rows[1:] + group.rows[:1], strict=True):
                number += 1
                complexity, prompt, fact, source = row
                yield {
                    "id": f"{domain}-{number:03d}",
                    "domain": domain,
                    "complexity": complexity,
                    "prompt": prompt,
                    "fact": fact,
                    "hallucination": following[2],
                    "known": group not in unseen,
                    "source": source,
                }


def write(path: Path) -> None:
    """Write the benchmark as JSON lines, UTF-8, one pair a line."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records()]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the bundled benchmark bluff200.")
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT_PATH, help="output file (default: %(default)s)")
    write(parser.parse_args().path)
