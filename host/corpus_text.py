# SPDX-License-Identifier: BSD-2-Clause
"""Word lists and templates of the default model's training text (see `corpus.py`).

All of it was written for this project. One entry per line or per comma, so that adding a fact is
adding a line; `corpus.py` turns the tables into questions, answers, dialogues and stories.
"""


def words(text):
    """Items separated by commas or line ends."""
    return [w.strip() for w in text.replace("\n", ",").split(",") if w.strip()]


def table(text):
    """Rows of cells separated by bars."""
    return [tuple(c.strip() for c in row.split("|")) for row in text.strip().splitlines()]


# Names ----------------------------------------------------------------------------------------

GIRLS = words("""Anna, Lily, Mia, Emma, Sara, Lucy, Nina, Clara, Rosa, Ella, Maria, Julia, Lena, Zoe, Amy,
Kate, Jane, Ruby, Daisy, Alice, Grace, Hannah, Sophie, Laura, Helen, Eva, Olga, Paula, Nora, Ivy, Susan,
Emily, Molly, Rachel, Diana, Carla, Tina, Vera, Wendy, Holly, Betty, Fiona, Gina, Linda, Tess, Amira, Mei""")
BOYS = words("""Tom, Ben, Max, Sam, Leo, Jack, Paul, Peter, Tim, Finn, David, Mark, Adam, Noah, Luke,
Henry, Oscar, Felix, Hugo, Simon, Jonas, Robert, Daniel, Oliver, Martin, George, James, John, Frank, Carl,
Victor, Alex, Eric, Ivan, Theo, Jim, Bob, Will, Ravi, Omar, Marco, Kevin, Lukas, Florent, Walter, Otto, Ken""")
PET_NAMES = words("""Rex, Bella, Milo, Luna, Fluffy, Spot, Coco, Rocky, Pip, Toby, Snowy, Buddy, Tiger, Ginger,
Biscuit, Pepper, Bruno, Minka, Pablo, Honey, Lulu, Simba, Oreo, Teddy, Nemo, Dusty, Sunny, Misty, Poppy""")
HELD_OUT_NAMES = words("Oskar, Marta, Sandra, Viktor, Sally, Gregor, Amanda, Benno, Tilda, Roland")
ONSETS = words("B, D, F, G, H, J, K, L, M, N, P, R, S, T, V, W, Z, Br, Dr, Fl, Gr, Kl, Tr, St, Sh, Th")
VOWELS = words("a, e, i, o, u, a, e, i, o, u, ai, ee, ou, ia")
MIDDLES = words("n, nd, m, l, r, s, t, k, kt, ld, rn, st, nn, ll, tt, v, d, b, g, z, sk, rt, lm, ph, gn, dr, nk, x")
CODAS = words("n, r, l, s, m, k, x, nd, rt, th, ck, ra, na, lo, ni, mo, ta, ric, bel, don, vin, la, so, dy")

# Facts ----------------------------------------------------------------------------------------

CAPITALS = dict(row.split(":") for row in words("""France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid,
England:London, Japan:Tokyo, China:Beijing, Russia:Moscow, Austria:Vienna, Poland:Warsaw, Sweden:Stockholm,
Norway:Oslo, Denmark:Copenhagen, Finland:Helsinki, Greece:Athens, Portugal:Lisbon, Ireland:Dublin,
Hungary:Budapest, Belgium:Brussels, Switzerland:Bern, Egypt:Cairo, Turkey:Ankara, India:New Delhi,
Canada:Ottawa, Australia:Canberra, Brazil:Brasilia, Argentina:Buenos Aires, Mexico:Mexico City, Peru:Lima,
Chile:Santiago, Cuba:Havana, Kenya:Nairobi, Thailand:Bangkok, Vietnam:Hanoi, South Korea:Seoul,
Scotland:Edinburgh, Wales:Cardiff, Iceland:Reykjavik, Ukraine:Kyiv, Romania:Bucharest, Bulgaria:Sofia,
Croatia:Zagreb, Serbia:Belgrade, Iran:Tehran, Iraq:Baghdad, Morocco:Rabat, the United States:Washington,
the Czech Republic:Prague, the Netherlands:Amsterdam"""))
UNKNOWN_COUNTRIES = words("""Mongolia, Bolivia, Nigeria, Ghana, Chad, Angola, Zambia, Laos, Nepal, Yemen, Oman,
Kuwait, Qatar, Estonia, Latvia, Albania, Malta, Cyprus, Uganda, Rwanda, Somalia, Sudan, Fiji, Samoa, Panama,
Haiti, Jamaica, Guatemala, Honduras, Belize, Gabon, Togo, Benin, Mali, Georgia, Armenia, Kazakhstan""")

COLOURS = words("""the sky is blue, grass is green, snow is white, blood is red, the sun is yellow,
a banana is yellow, a lemon is yellow, a tomato is red, a strawberry is red, a carrot is orange,
an orange is orange, coal is black, milk is white, a leaf is green, a frog is green, the sea is blue,
an elephant is grey, a mouse is grey, a flamingo is pink, a pig is pink, chocolate is brown, a bear is brown,
a crow is black, a swan is white, a cucumber is green, a plum is purple, gold is yellow, silver is grey,
the night is black, a fire engine is red, a pumpkin is orange, a fox is red, rice is white, salt is white,
a polar bear is white, a canary is yellow, a pea is green, a cherry is red, wood is brown, paper is white""")

# Common nouns of which the model knows nothing (it shall say so).
UNKNOWN_THINGS = words("""violin, guitar, piano, trumpet, volcano, comet, planet, tiger, zebra, shark, eagle, crocodile, whale,
parrot, hippo, ostrich, lobster, spoonbill, wheel, carpet, curtain, sofa, table, desk, shelf, cupboard, mirror, sink, pipe,
brick, tile, roof, wall, cellar, church, temple, museum, theatre, stadium, factory, office, market, harbour, tower, tunnel,
lawyer, judge, soldier, plumber, scientist, astronaut, engineer, nurse, waiter, journalist, mango, pineapple, melon, onion,
garlic, pepper, spinach, almond, olive, coconut, sandwich, sausage, noodle, burger, cookie, lollipop, helicopter, rocket,
submarine, tractor, truck, bus, scooter, screwdriver, drill, axe, tent, helmet, glove, necklace, wallet, passport, ticket,
magnet, microscope, printer, keyboard, screen, radio, transistor, diode, battery, satellite, laser, engine, valley, waterfall,
glacier, swamp, canyon, storm, tornado, rainbow, shadow, triangle, circle, cube, song, poem, novel, law, war, virus""")
HELD_OUT_THINGS    = words("clarinet, leopard, saxophone, balcony, dentist, avocado, compass, hurricane, fountain, yacht")
HELD_OUT_COUNTRIES = words("Tunisia, Libya, Slovenia, Lebanon, Botswana, Nauru, Ecuador, Lithuania, Madagascar, Bhutan")

FLYERS = words("duck, owl, bee")
PLURALS = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "wolf": "wolves", "knife": "knives"}
SIZES  = words("ant, bee, mouse, frog, rabbit, cat, fox, dog, wolf, pig, cow, horse, elephant")
FRUITS = words("apple, banana, lemon, cherry, plum, strawberry")
NUMBER_WORDS = words("zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve")
GOODS_TO_COUNT = words("apples, books, balls, coins, eggs, pens, stones, cakes, flowers, cats, dogs, birds, toys, friends")

# animal | sound verb phrase | young | home | food | legs | what it is
ANIMALS = table("""
dog|says woof|puppy|in a house|meat|four|a friendly animal that barks and guards the house
cat|says meow|kitten|in a house|fish and mice|four|a soft animal that likes to sleep and catch mice
cow|says moo|calf|on a farm|grass|four|a big farm animal that gives milk
sheep|says baa|lamb|on a farm|grass|four|a farm animal that gives wool
pig|says oink|piglet|on a farm|almost anything|four|a pink farm animal that likes mud
horse|says neigh|foal|on a farm|hay and grass|four|a big strong animal that people can ride
duck|says quack|duckling|on a pond|bread and plants|two|a bird that swims on the water
hen|says cluck|chick|on a farm|corn|two|a farm bird that lays eggs
lion|roars|cub|in Africa|meat|four|a big wild cat with a golden coat
bear|growls|cub|in the forest|honey and fish|four|a big brown animal that lives in the forest
wolf|howls|cub|in the forest|meat|four|a wild animal that looks like a dog
fox|barks|cub|in the forest|mice|four|a clever red animal with a long tail
mouse|squeaks|pup|in a small hole|cheese and corn|four|a tiny grey animal with a long tail
frog|croaks|tadpole|near a pond|flies|four|a small green animal that can jump
owl|hoots|owlet|in a tree|mice|two|a bird that is awake at night
bee|buzzes|larva|in a hive|nectar|six|a small insect that makes honey
goat|bleats|kid|on a farm|grass|four|a farm animal with horns and a beard
elephant|trumpets|calf|in Africa and India|leaves and grass|four|a very big grey animal with a long trunk
rabbit|is very quiet|bunny|in a burrow|carrots and grass|four|a small animal with long ears
snake|hisses|snakelet|in the grass|mice|no|a long animal without legs
spider|makes no sound|spiderling|in a web|flies|eight|a small animal with eight legs
fish|makes no sound|fry|in the water|plants and worms|no|an animal that swims and lives in water
penguin|honks|chick|in the cold south|fish|two|a black and white bird that cannot fly
monkey|chatters|infant|in the jungle|bananas|two|a clever animal that climbs trees
kangaroo|grunts|joey|in Australia|grass|two|an animal that jumps and has a pouch
camel|grunts|calf|in the desert|dry plants|four|an animal with a hump that lives in the desert
ant|makes no sound|larva|in an anthill|seeds and leaves|six|a tiny insect that works very hard
turtle|makes no sound|hatchling|near the water|plants|four|a slow animal with a hard shell
""")

OPPOSITES = [tuple(p.split()) for p in words("""hot cold, big small, tall short, fast slow, up down, left right,
happy sad, day night, black white, old young, good bad, open closed, full empty, wet dry, hard soft, rich poor,
early late, light dark, loud quiet, high low, near far, strong weak, clean dirty, long brief, in out, yes no,
love hate, start stop, win lose, push pull, buy sell, first last, front back, inside outside, summer winter,
heavy weightless, thick thin, sweet sour, easy difficult, wide narrow, true false, alive dead, above below,
always never, begin end, come go, give take, laugh cry, asleep awake, cheap expensive, brave afraid""")]

# thing | what you use it for | kind of thing it is
USES = table("""
spoon|eat soup|a tool for eating
fork|eat food|a tool for eating
knife|cut bread|a sharp tool
cup|drink tea|a small vessel
pen|write|a tool for writing
pencil|draw pictures|a tool for drawing
key|open a door|a small metal thing
hammer|hit nails|a heavy tool
saw|cut wood|a sharp tool
broom|sweep the floor|a tool for cleaning
umbrella|stay dry in the rain|a thing that keeps the rain off
bed|sleep|a piece of furniture
chair|sit down|a piece of furniture
lamp|make light|a thing that gives light
clock|tell the time|a thing that shows the time
phone|talk to people far away|a thing for talking
car|drive on the road|a machine with four wheels
bicycle|ride on two wheels|a thing with two wheels
boat|travel on the water|a thing that floats
plane|fly in the air|a machine that flies
soap|wash your hands|a thing for washing
towel|dry your hands|a soft cloth
comb|tidy your hair|a thing for your hair
book|read a story|many pages with words
needle|sew clothes|a thin sharp tool
rope|tie things together|a long strong string
ladder|climb up high|a thing with many steps
shovel|dig a hole|a tool for the garden
oven|bake bread|a hot box in the kitchen
fridge|keep food cold|a cold box in the kitchen
window|let light into a room|a piece of glass in a wall
map|find the way|a picture of the land
camera|take pictures|a machine for pictures
ball|play games|a round toy
bag|carry things|a thing to put things into
bridge|cross a river|a road over water
candle|make a little light|a stick of wax
coat|keep warm|a thing to wear
computer|work with numbers and words|a machine that works with numbers
ruler|measure how long something is|a straight tool
telescope|look at the stars|a tube for looking far away
bucket|carry water|a round vessel
""")

DEFINITIONS = table("""
apple|a sweet round fruit that grows on a tree
banana|a long yellow fruit
carrot|an orange vegetable that grows in the ground
potato|a vegetable that grows in the ground
tomato|a red fruit that we eat in salad
lemon|a sour yellow fruit
tree|a tall plant with leaves
flower|a pretty part of a plant
river|a long stream of water that flows to the sea
mountain|a very high piece of land
island|a piece of land with water all around it
forest|a place with many trees
desert|a dry place with a lot of sand
farm|a place where people grow food and keep animals
school|a place where children learn
hospital|a place where doctors help sick people
library|a place with many books
kitchen|a room where people cook
garden|a place where flowers and vegetables grow
teacher|a person who helps children learn
doctor|a person who helps sick people
baker|a person who bakes bread
farmer|a person who works on a farm
pilot|a person who flies a plane
sailor|a person who works on a ship
cook|a person who makes food
painter|a person who paints pictures
star|a bright light in the night sky
cloud|a white or grey thing in the sky that brings rain
robot|a machine that can do some work
house|a building where people live
train|a long machine that runs on rails
bird|an animal with feathers and wings
insect|a small animal with six legs
fruit|a sweet part of a plant that we can eat
vegetable|a plant that we can eat
city|a place where many people live
friend|a person whom you like and trust
""")

# alternative questions => answer
MISC = [(tuple(q.strip() for q in row.split("=>")[0].split(" / ")), row.split("=>")[1].strip()) for row in """
How many days are in a week? / How many days does a week have? / How long is a week? => A week has seven days.
How many months are in a year? / How many months does a year have? => A year has twelve months.
How many hours are in a day? / How many hours does a day have? => A day has 24 hours.
How many minutes are in an hour? / How many minutes does an hour have? => An hour has 60 minutes.
How many seconds are in a minute? / How many seconds does a minute have? => A minute has 60 seconds.
How many days are in a year? / How many days does a year have? => A year has 365 days.
How many seasons are there? / What are the seasons? / Name the seasons. => There are four seasons: spring, summer, autumn and winter.
What are the days of the week? / Name the days of the week. / Tell me the days of the week. => The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.
What are the months of the year? / Name the months. / Tell me the months. => The months are January, February, March, April, May, June, July, August, September, October, November and December.
Which season is the coldest? / What is the coldest season? / When is it cold? => Winter is the coldest season.
Which season is the warmest? / What is the warmest season? / When is it hot? => Summer is the warmest season.
What falls from the sky in winter? / What is white and cold? => Snow is white and cold, and it falls in winter.
What do we see with? / What are eyes for? / Why do we have eyes? => We see with our eyes.
What do we hear with? / What are ears for? / Why do we have ears? => We hear with our ears.
What do we smell with? / What is a nose for? / Why do we have a nose? => We smell with our nose.
What do we walk with? / What are legs for? / Why do we have legs? => We walk with our legs.
How many fingers do I have? / How many fingers does a hand have? / How many fingers are on one hand? => A hand has five fingers.
How many eyes do people have? / How many eyes do I have? => People have two eyes.
What is the largest animal? / Which animal is the biggest? => The blue whale is the largest animal.
What is the fastest animal? / Which animal is the fastest? => The cheetah is the fastest animal on land.
What is the tallest animal? / Which animal is the tallest? => The giraffe is the tallest animal.
Which animal gives us milk? / Where does milk come from? => Milk comes from cows.
Where do eggs come from? / Which animal lays eggs? => Eggs come from hens.
Where does honey come from? / Who makes honey? => Bees make honey.
Where does wool come from? / Which animal gives us wool? => Wool comes from sheep.
What is bread made of? / How is bread made? => Bread is made of flour, water and salt.
What is ice? / What happens to water when it is very cold? => Ice is water that is very cold and hard.
What is rain? / Where does rain come from? => Rain is water that falls from clouds.
What is snow? => Snow is frozen water that falls from clouds in winter.
What is the sun? / Tell me about the sun. => The sun is a star that gives us light and warmth.
What is the moon? / Tell me about the moon. => The moon goes around the earth and shines at night.
What is the earth? / Where do we live? => The earth is the planet on which we live.
When does the sun rise? / When does the sun come up? => The sun rises in the morning.
When does the sun set? / When does the sun go down? => The sun sets in the evening.
Where does the sun rise? => The sun rises in the east.
What do fish need to live? / Where can I find fish? => Fish live in water.
What do plants need? / What do plants need to grow? => Plants need water, light and earth.
What do people drink? / What should I drink? => People drink water, tea and milk.
What do people eat for breakfast? / What should I eat for breakfast? => Many people eat bread and eggs for breakfast.
What is water? / Tell me about water. => Water is what we drink and what fills the rivers and the sea.
What is the opposite of a question? => The opposite of a question is an answer.
What is the alphabet? / Say the alphabet. / Tell me the alphabet. => A B C D E F G H I J K L M N O P Q R S T U V W X Y Z.
What is the first letter of the alphabet? => The first letter of the alphabet is A.
What is the last letter of the alphabet? => The last letter of the alphabet is Z.
How many letters are in the alphabet? / How many letters does the alphabet have? => The alphabet has 26 letters.
Name a fruit. / Name some fruits. / Tell me some fruits. => Some fruits are apples, bananas and cherries.
Name a vegetable. / Name some vegetables. => Some vegetables are carrots, potatoes and peas.
Name an animal. / Name some animals. / Tell me some animals. => Some animals are dogs, cats, horses and birds.
Name a colour. / Name some colours. / Tell me some colours. / Name some colors. => Some colours are red, blue, green and yellow.
""".strip().splitlines()]
