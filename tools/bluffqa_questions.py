"""The questions of bluffqa, one table a domain; `make_bluffqa.py` checks them and writes the file.

A row is ``(popularity, question, answer, aliases, lure)``, the last two where there are any. Popularity runs from 1
(nearly everybody knows) to 5 (few do, or several steps). Aliases are separated by " / ". Answers that follow from
arithmetic, the calendar or a comparison are computed here; the tool adds spelled numbers, years and dates.
"""

from __future__ import annotations

import math
from datetime import date
from fractions import Fraction

Row = tuple[object, ...]
Option = tuple[str, float]


def weekday(year: int, month: int, day: int) -> str:
    """The day of the week of a date in the Gregorian calendar."""
    return f"{date(year, month, day):%A}"


def days_on(start: str, days: int) -> str:
    """The day of the week so many days after another one."""
    week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    return week[(week.index(start) + days) % 7]


def least(popularity: int, asked: str, one: Option, other: Option) -> Row:
    """A choice of two, each with its value: the one with the smaller value is right."""
    return popularity, f"{asked}: {one[0]} or {other[0]}?", min(one, other, key=lambda option: option[1])[0]


def most(popularity: int, asked: str, one: Option, other: Option) -> Row:
    """A choice of two, each with its value: the one with the larger value is right."""
    return popularity, f"{asked}: {one[0]} or {other[0]}?", max(one, other, key=lambda option: option[1])[0]


def lured(row: Row, aliases: str = "") -> Row:
    """A choice of two whose wrong option is the common misconception."""
    options = str(row[1]).rsplit(": ", 1)[1].removesuffix("?").split(" or ")
    return (*row, aliases, next(option for option in options if option != row[2]))


def primes(below: int) -> list[int]:
    """All primes below a number, in order."""
    return [n for n in range(2, below) if all(n % d for d in range(2, math.isqrt(n) + 1))]


# fmt: off
ENTITY: list[Row] = [
    (1, "What is the capital of Spain?", "Madrid"),
    (1, "What is the capital of China?", "Beijing", "Peking"),
    (1, "Who wrote the play Romeo and Juliet?", "William Shakespeare", "Shakespeare"),
    (1, "Who painted the Mona Lisa?", "Leonardo da Vinci", "Leonardo / da Vinci"),
    (1, "Which planet is known as the Red Planet?", "Mars"),
    (1, "What is the chemical formula of water?", "H2O"),
    (1, "In which country are the pyramids of Giza?", "Egypt", "Arab Republic of Egypt"),
    (1, "On which continent is Brazil?", "South America"),
    (1, "Which sport is played at Wimbledon?", "tennis", "lawn tennis"),
    (1, "Which organ pumps blood through the human body?", "heart"),
    (1, "Who developed the general theory of relativity?", "Albert Einstein", "Einstein"),

    (2, "What is the capital of Thailand?", "Bangkok", "Krung Thep / Krung Thep Maha Nakhon"),
    (2, "Who composed the ballet Swan Lake?", "Pyotr Ilyich Tchaikovsky",
     "Tchaikovsky / Pyotr Tchaikovsky / Peter Tchaikovsky / Peter Ilyich Tchaikovsky / Tschaikowsky"),
    (2, "Which river flows through Cairo?", "Nile", "River Nile / Nile River"),
    (2, "What is the largest planet in the Solar System?", "Jupiter"),
    (2, "In which country is the Taj Mahal?", "India", "Republic of India / Bharat"),
    (2, "What is the highest mountain in Africa?", "Kilimanjaro", "Mount Kilimanjaro / Mt Kilimanjaro / Kibo"),
    (2, "Which gas do plants take from the air for photosynthesis?", "carbon dioxide", "CO2"),
    (2, "In which sport do players hit a shuttlecock?", "badminton"),
    (2, "Which metal, used in old thermometers, is liquid at room temperature?", "mercury", "quicksilver / Hg"),
    (2, "What is the currency of the United Kingdom?", "pound sterling", "pound / British pound / sterling / GBP"),
    (2, "Who painted The Starry Night?", "Vincent van Gogh", "van Gogh / Vincent Willem van Gogh"),

    (3, "What is the capital of Peru?", "Lima"),
    (3, "Who wrote the novel Don Quixote?", "Miguel de Cervantes", "Cervantes / Miguel de Cervantes Saavedra"),
    (3, "Which strait separates Spain from Morocco?", "Strait of Gibraltar", "Gibraltar / Gibraltar Strait"),
    (3, "Which Greek philosopher taught Alexander the Great?", "Aristotle", "Aristoteles"),
    (3, "Who discovered penicillin?", "Alexander Fleming", "Fleming / Sir Alexander Fleming"),
    (3, "Which desert covers much of southern Mongolia?", "Gobi", "Gobi Desert"),
    (3, "Which lake in Siberia is the deepest lake in the world?", "Baikal", "Lake Baikal"),
    (3, "Who wrote The Divine Comedy?", "Dante Alighieri", "Dante"),
    (3, "Which people built Machu Picchu?", "Inca", "Incas / Inka / Inkas / Inca people"),
    (3, "What is the longest bone in the human body?", "femur", "thigh bone / thighbone"),
    (3, "Who founded the Mongol Empire?", "Genghis Khan", "Chinggis Khan / Chingiz Khan / Temujin / Temüjin"),

    (4, "What is the capital of Mongolia?", "Ulaanbaatar", "Ulan Bator / Ulan-Bator / Ulaan Baatar"),
    (4, "Who wrote the novel Things Fall Apart?", "Chinua Achebe", "Achebe"),
    (4, "Who composed the opera Carmen?", "Georges Bizet", "Bizet"),
    (4, "What is the currency of Thailand?", "baht", "Thai baht / THB"),
    (4, "Who made the woodblock print The Great Wave off Kanagawa?", "Katsushika Hokusai", "Hokusai"),
    (4, "Which language is written in Hangul?", "Korean"),
    (4, "Which river flows through Baghdad?", "Tigris", "River Tigris / Tigris River"),
    (4, "Who wrote the collection of poems Gitanjali?", "Rabindranath Tagore", "Tagore"),
    (4, "In which sport do Europe and the United States play for the Ryder Cup?", "golf"),
    (4, "What is the largest moon in the Solar System?", "Ganymede"),
    (4, "What is the Maori name of New Zealand?", "Aotearoa"),
    (4, "Which mathematician proved Fermat's Last Theorem?", "Andrew Wiles", "Wiles / Sir Andrew Wiles"),

    (5, "What is the capital of Bhutan?", "Thimphu", "Thimbu"),
    (5, "What is the capital of Suriname?", "Paramaribo"),
    (5, "What is the currency of Ethiopia?", "birr", "Ethiopian birr / ETB"),
    (5, "Who composed the opera Jenufa?", "Leoš Janáček", "Leos Janacek / Janáček / Janacek"),
    (5, "Who discovered Phobos and Deimos, the moons of Mars?", "Asaph Hall", "Hall / Asaph Hall III"),
    (5, "Which chemical element has the atomic number 72?", "hafnium", "Hf"),
    (5, "Which ancient script did Michael Ventris decipher?", "Linear B"),
    (5, "Who wrote The Tale of Genji?", "Murasaki Shikibu", "Lady Murasaki / Murasaki"),
    (5, "Which Persian poet wrote the Shahnameh?", "Ferdowsi",
     "Firdausi / Firdawsi / Firdousi / Firdusi / Abolqasem Ferdowsi / Abu al-Qasim Ferdowsi"),
    (5, "What is the SI unit of magnetic flux?", "weber", "Wb"),
    (5, "Which sea in the Atlantic has no coast?", "Sargasso Sea", "Sargasso"),
]

TEMPORAL: list[Row] = [
    (1, "How many days are there in a week?", 7),
    (1, "How many months are there in a year?", 12),
    (1, "How many hours are there in a day?", 24),
    (1, "How many minutes are there in an hour?", 60),
    (1, "How many years are there in a century?", 100, "hundred"),
    (1, "Which month comes after June?", "July"),
    (1, "Which day comes after Monday?", days_on("Monday", 1)),
    (1, "Which season comes after winter?", "spring", "springtime"),
    (1, "Which month is the first of the year?", "January", "Jan"),
    (1, "In what year did the Second World War end?", 1945),
    (1, "On what date is Christmas Day in most countries?", "25 December"),

    (2, "In what year did people first walk on the Moon?", 1969),
    (2, "In what year did the Titanic sink?", 1912),
    (2, "In what year did the First World War begin?", 1914),
    (2, "In what year did Columbus first reach the Americas?", 1492),
    (2, "In what year did the Berlin Wall fall?", 1989),
    (2, "How many days are there in a leap year?", (date(2025, 1, 1) - date(2024, 1, 1)).days),
    (2, "How many years are there in a decade?", 10),
    (2, "Which month has the fewest days?", "February", "Feb"),
    (2, "On what date does the United States celebrate its independence?", "4 July", "Fourth of July"),
    least(2, "Which came first", ("the Bronze Age", -3300), ("the Stone Age", -2_600_000)),
    least(2, "Who was born first", ("Isaac Newton", 1643), ("Albert Einstein", 1879)),

    (3, "In what year did the French Revolution begin?", 1789),
    (3, "In what year did India become independent of Britain?", 1947),
    (3, "In what year did Nelson Mandela become president of South Africa?", 1994),
    (3, "In what year did the Chernobyl nuclear disaster happen?", 1986),
    (3, "In what year did the first human being fly into space?", 1961),
    (3, "In what year was the Battle of Waterloo fought?", 1815),
    (3, "In what year did Britain hand Hong Kong over to China?", 1997),
    (3, "How many hours are there in a week?", 7 * 24),
    (3, "On what date does France celebrate Bastille Day?", "14 July"),
    least(3, "Which fell first", ("the Byzantine Empire", 1453), ("the Western Roman Empire", 476)),
    least(3, "Which was invented first", ("the telephone", 1876), ("the television", 1926)),
    (3, "If today is Wednesday, which day will it be in ten days?", days_on("Wednesday", 10)),

    (4, "In what year did Ghana become independent of Britain?", 1957),
    (4, "In what year did the Ottomans take Constantinople?", 1453),
    (4, "In what year did the Suez Canal open?", 1869),
    (4, "In what year did the Meiji Restoration begin in Japan?", 1868),
    (4, "In what year was the first men's football World Cup played?", 1930),
    (4, "In what year were the first modern Olympic Games held in Athens?", 1896),
    (4, "Which dynasty ruled China directly after the Yuan?", "Ming", "Ming dynasty"),
    (4, "Which geological period came directly after the Jurassic?", "Cretaceous", "Cretaceous period"),
    (4, "How many minutes are there in a day?", 24 * 60),
    (4, "How many full years was Victoria queen of the United Kingdom?",
     1901 - 1837 - ((1, 22) < (6, 20))),  # 20 June 1837 to 22 January 1901
    (4, "On what date does Mexico celebrate its independence?", "16 September"),
    least(4, "Who was born first", ("Johann Sebastian Bach", 1685), ("Ludwig van Beethoven", 1770)),

    (5, "In what year did Ethiopia defeat Italy at Adwa?", 1896),
    (5, "In what year did the Peace of Westphalia end the Thirty Years' War?", 1648),
    (5, "In what year was the Edict of Nantes issued?", 1598),
    (5, "In what year was the Treaty of Tordesillas signed?", 1494),
    (5, "In what year was the Battle of Manzikert fought?", 1071),
    (5, "In what year did Brazil abolish slavery?", 1888),
    (5, "In what year did the Burmese destroy Ayutthaya, the capital of Siam?", 1767),
    (5, "Which geological period came directly before the Carboniferous?", "Devonian", "Devonian period"),
    (5, "Which Roman emperor directly followed Trajan?", "Hadrian", "Hadrianus"),
    (5, "On which day of the week did people first land on the Moon, on 20 July 1969?", weekday(1969, 7, 20)),
    (5, "On which day of the week did 1 January 2000 fall?", weekday(2000, 1, 1)),
    least(5, "Who was born first", ("Mahatma Gandhi", 1869), ("Rabindranath Tagore", 1861)),
]

LOGICAL: list[Row] = [
    (1, "What is 2 plus 2?", 2 + 2),
    (1, "What is 10 minus 3?", 10 - 3),
    (1, "What is 5 times 2?", 5 * 2),
    (1, "What is half of 12?", 12 // 2),
    (1, "Which number follows in the sequence 1, 2, 3, 4?", 5),
    (1, "Which letter follows G in the alphabet?", chr(ord("G") + 1)),
    (1, "How many wheels do two bicycles have together?", 2 * 2),
    (1, "Hot is to cold as up is to what?", "down", "downward / downwards"),
    (1, "Kitten is to cat as puppy is to what?", "dog"),
    most(1, "Which number is larger", ("4", 4), ("9", 9)),
    most(1, "Which animal is heavier", ("an elephant", 5000), ("a mouse", 0.02)),

    (2, "What is 7 times 8?", 7 * 8),
    (2, "What is 100 minus 45?", 100 - 45),
    (2, "What is 6 squared?", 6 ** 2),
    (2, "Which number follows in the sequence 2, 4, 6, 8?", 10),
    (2, "How many eggs are there in two dozen?", 2 * 12),
    (2, "How many sides do three triangles have together?", 3 * 3),
    (2, "What is the sister of your mother to you?", "aunt", "aunty / auntie / maternal aunt / your aunt / my aunt"),
    (2, "What is the father of your father to you?", "grandfather",
     "granddad / grandad / grandpa / paternal grandfather / your grandfather / my grandfather"),
    (2, "If you face north and turn right by 90 degrees, which way do you face?", "east", "eastward / eastwards"),
    least(2, "Tom is taller than Ann. Who is shorter", ("Tom", 2), ("Ann", 1)),
    (*most(2, "Which number is larger", ("0.5", 0.5), ("0.25", 0.25)), "zero point five / one half"),

    (3, "What is 13 times 7?", 13 * 7),
    (3, "What is 15 percent of 200?", 15 * 200 // 100),
    (3, "What is the square root of 81?", math.isqrt(81)),
    (3, "Which number follows in the sequence 1, 4, 9, 16?", 5 ** 2),
    (3, "Which number follows in the sequence 1, 1, 2, 3, 5, 8?", 5 + 8),
    (3, "How many edges does a cube have?", 3 * 2 ** 2),
    (3, "What is the smallest prime number above 24?", min(p for p in primes(50) if p > 24)),
    (3, "How many kilometres does a train go in 3 hours at 70 kilometres an hour?", 3 * 70),
    (3, "If three pens cost 12 dollars, how many dollars do five such pens cost?", 12 // 3 * 5),
    (3, "If you face east and turn right twice by 90 degrees, which way do you face?", "west", "westward / westwards"),
    most(3, "Ann is older than Ben, and Ben is older than Cal. Who is older", ("Cal", 1), ("Ann", 3)),

    (4, "What is 17 times 23?", 17 * 23),
    (4, "What is 2 to the power of 10?", 2 ** 10),
    (4, "What is the greatest common divisor of 48 and 36?", math.gcd(48, 36)),
    (4, "Which number follows in the sequence 2, 6, 12, 20, 30?", 6 * 7),
    (4, "What is the sum of all whole numbers from 1 to 20?", sum(range(1, 21))),
    (4, "What is the largest prime number below 50?", max(primes(50))),
    (4, "Which number do the Roman numerals MCM stand for?", 1000 + (1000 - 100), "nineteen hundred"),
    (4, "What is the binary number 1011 in decimal?", int("1011", 2)),
    (4, "In how many orders can four people stand in a line?", math.factorial(4)),
    (4, "What is the chance that two tosses of a fair coin both give heads?", Fraction(1, 2) ** 2,
     "one quarter / a quarter / one fourth / one in four / 1 in 4 / 0.25 / 25% / 25 percent"),
    (4, "How many degrees do the inner angles of a hexagon add up to?", (6 - 2) * 180),

    (5, "What is 37 times 43?", 37 * 43),
    (5, "What is the remainder of 1000 divided by 13?", 1000 % 13),
    (5, "What is the hexadecimal number 7F in decimal?", 0x7F),
    (5, "What is the sum of the first ten prime numbers?", sum(primes(50)[:10])),
    (5, "If each of 12 people shakes hands once with each other, how many handshakes are there?", math.comb(12, 2)),
    (5, "What is the factorial of 7?", math.factorial(7)),
    (5, "How many positive divisors does 360 have?", sum(360 % d == 0 for d in range(1, 361))),
    (5, "How many diagonals does a convex polygon with ten sides have?", math.comb(10, 2) - 10),
    (5, "With how many zeros does the factorial of 25 end?",
     len(str(math.factorial(25))) - len(str(math.factorial(25)).rstrip("0"))),
    (5, "If three painters need six hours for a wall, how many hours do two need at the same pace?", 3 * 6 // 2),
    (*most(5, "Which fraction is larger", ("3/7", 3 / 7), ("4/9", 4 / 9)), "four ninths"),
]

ADVERSARIAL: list[Row] = [
    (1, "What is the capital of Australia?", "Canberra", "", "Sydney"),
    (1, "What is the capital of the United States?", "Washington, D.C.",
     "Washington DC / Washington / District of Columbia", "New York"),
    (1, "How many legs does a spider have?", 8, "", "6"),
    (1, "To which class of animals do whales belong?", "mammals", "mammal / Mammalia / a mammal", "fish"),
    (1, "To which class of animals do penguins belong?", "birds", "bird / Aves / a bird", "mammals"),
    (1, "Which language do most people in Brazil speak?", "Portuguese", "Brazilian Portuguese", "Spanish"),
    (1, "Which star is nearest to Earth?", "Sun", "the Sun / Sol / our Sun", "Proxima Centauri"),
    (1, "What colour is the blood in human veins?", "red", "dark red", "blue"),
    (1, "What kind of animal is a guinea pig?", "rodent", "a rodent / cavy", "pig"),
    (1, "How many months of the year have at least 28 days?",
     sum((date(2023 + m // 12, m % 12 + 1, 1) - date(2023, m, 1)).days >= 28 for m in range(1, 13)),
     "all of them / all twelve", "1"),
    (1, "How many times does the letter r occur in the word strawberry?", "strawberry".count("r"), "", "2"),

    (2, "What is the capital of Canada?", "Ottawa", "", "Toronto"),
    (2, "What is the capital of Turkey?", "Ankara", "", "Istanbul"),
    (2, "What is the capital of New Zealand?", "Wellington", "", "Auckland"),
    (2, "What is the capital of Brazil?", "Brasília", "Brasilia", "Rio de Janeiro"),
    (2, "Which gas makes up most of the air?", "nitrogen", "N2", "oxygen"),
    (2, "What do botanists call a tomato: a vegetable or a fruit?", "fruit", "a fruit / berry / a berry", "vegetable"),
    (2, "What does a camel store in its hump: fat or water?", "fat", "", "water"),
    (2, "What is coral: an animal or a plant?", "animal", "an animal", "plant"),
    (2, "What is mixed with clay to make the writing core of a pencil?", "graphite", "graphite powder", "lead"),
    (2, "From which continent do potatoes come?", "South America", "", "Europe"),
    lured(most(2, "Which is larger in area", ("Greenland", 2.17), ("Africa", 30.4))),

    (3, "What is the capital of Nigeria?", "Abuja", "", "Lagos"),
    (3, "What is the capital of Morocco?", "Rabat", "", "Casablanca"),
    (3, "Which is the hottest planet in the Solar System?", "Venus", "", "Mercury"),
    (3, "Which is the brightest star in the night sky?", "Sirius", "Dog Star / Alpha Canis Majoris / Sirius A",
     "Polaris"),
    (3, "Who was the first Roman emperor?", "Augustus", "Octavian / Caesar Augustus / Octavianus", "Julius Caesar"),
    (3, "In which modern country are the ruins of Troy?", "Turkey", "Türkiye / Turkiye", "Greece"),
    (3, "In which country was printing with movable type invented?", "China", "", "Germany"),
    (3, "From which continent does the coffee plant come?", "Africa", "", "South America"),
    (3, "What kind of insect is a firefly?", "beetle", "a beetle / beetles", "fly"),
    (3, "What causes the seasons on Earth: the distance from the Sun or the tilt of the axis?", "tilt of the axis",
     "axial tilt / tilt / tilt of its axis / tilt of Earth's axis / Earth's axial tilt", "distance from the Sun"),
    (3, "What is 1 plus 2 times 3?", 1 + 2 * 3, "", "9"),
    lured(most(3, "Which number is larger", ("9.11", 9.11), ("9.9", 9.9)), "nine point nine"),

    (4, "What is the capital of Tanzania?", "Dodoma", "", "Dar es Salaam"),
    (4, "In which country did the Panama hat originate?", "Ecuador", "", "Panama"),
    (4, "For what did Albert Einstein receive the Nobel Prize: the photoelectric effect or relativity?",
     "photoelectric effect", "law of the photoelectric effect", "relativity"),
    (4, "In which month does the Oktoberfest in Munich begin?", "September", "Sep / Sept", "October"),
    (4, "In which country was the dog breed Great Dane developed?", "Germany", "", "Denmark"),
    (4, "Which mountain is the tallest on Earth measured from its base under the sea?", "Mauna Kea", "",
     "Mount Everest"),
    (4, "Which metal conducts electricity best at room temperature?", "silver", "Ag", "copper"),
    (4, "What colour is the skin under the fur of a polar bear?", "black", "", "white"),
    (4, "How many years did the Hundred Years' War last, from its first to its last year?", 1453 - 1337, "", "100"),
    (4, "In a group of how many people does the chance of a shared birthday first pass one half?",
     next(n for n in range(366) if math.prod((365 - k) / 365 for k in range(n)) < 0.5), "", "183"),
    (4, "To which are mushrooms more closely related: animals or plants?", "animals", "", "plants"),
    lured(most(4, "Which city lies farther north", ("Rome", 41.9), ("New York", 40.7))),

    (5, "What is the capital of Myanmar?", "Naypyidaw", "Nay Pyi Taw / Naypyitaw / Nay Pyi Daw", "Yangon"),
    (5, "What is the capital of Ivory Coast?", "Yamoussoukro", "", "Abidjan"),
    (5, "Which captain brought home the first ship that had sailed round the world?", "Juan Sebastián Elcano",
     "Juan Sebastian Elcano / Elcano / Juan Sebastián del Cano / Juan Sebastian del Cano / Sebastian Elcano",
     "Ferdinand Magellan"),
    (5, "The summit of which mountain is farthest from the centre of the Earth?", "Chimborazo", "Mount Chimborazo",
     "Mount Everest"),
    (5, "Which emperor made Christianity the state religion of the Roman Empire?", "Theodosius I",
     "Theodosius / Theodosius the Great / Flavius Theodosius", "Constantine"),
    (5, "From which continent does the Jerusalem artichoke come?", "North America", "", "Asia"),
    (5, "How many days did February have in the year 1900 of the Gregorian calendar?",
     (date(1900, 3, 1) - date(1900, 2, 1)).days, "", "29"),
    (5, "A car goes out at 40 km/h and back the same way at 60 km/h. What is its average speed in km/h?",
     2 * 40 * 60 // (40 + 60), "", "50"),
    (5, "A price rises by 50 percent and then falls by 50 percent. What percent of the first price is it now?",
     150 // 2, "75 percent / 75%", "100"),
    lured(most(5, "Which is larger in area", ("Algeria", 2.38), ("Greenland", 2.17))),
    lured(least(5, "Which city lies farther west", ("Los Angeles", -118.2), ("Reno", -119.8))),
]
# fmt: on
