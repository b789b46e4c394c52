# ruff: noqa: RUF001
"""The words made-up Last.fm data is composed of: genres with their artists, countries, syllables. Data only.

What is drawn from them, and how often, belongs in `sample_data`.
"""

from typing import NamedTuple


class Genre(NamedTuple):
    """A planted taste: how common it is, 16 well-known artists from the most loved down, 8 words for made-up names.

    No word stands in two genres, so that a made-up name tells its genre.
    """

    weight: float
    artists: tuple[str, ...]
    words: tuple[str, ...]
    script: str = "Latin"


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


GENRES = {
    "indie rock": Genre(
        9.0,
        _list(
            "Radiohead|Arctic Monkeys|Arcade Fire|The Strokes|The National|Tame Impala|Bloc Party|Interpol|"
            "Franz Ferdinand|Yeah Yeah Yeahs|Modest Mouse|The xx|Beach House|Animal Collective|Vampire Weekend|"
            "Florence + the Machine"
        ),
        _list("Arcades|Lanterns|Weekends|Polaroids|Sleepers|Postcards|Bicycles|Sundays"),
    ),
    "classic rock": Genre(
        7.5,
        _list(
            "The Beatles|Pink Floyd|David Bowie|Queen|Led Zeppelin|The Rolling Stones|The Doors|AC/DC|Jimi Hendrix|"
            "Fleetwood Mac|Deep Purple|Eric Clapton|Simon & Garfunkel|Crosby, Stills, Nash & Young|"
            "Emerson, Lake & Palmer|Derek and the Dominos"
        ),
        _list("Highway|Travellers|Boulevard|Stallions|Thunder|Gypsies|Revival|Outlaws"),
    ),
    "new wave": Genre(
        5.0,
        _list(
            "The Cure|Depeche Mode|The Smiths|Joy Division|New Order|Siouxsie and the Banshees|Talking Heads|Blondie|"
            "Bauhaus|Cocteau Twins|Echo & the Bunnymen|The Sisters of Mercy|Duran Duran|Gary Numan|Tears for Fears|"
            "Orchestral Manœuvres in the Dark"
        ),
        _list("Shadows|Mannequins|Corridors|Velvet|Mirrors|Neon|Factory|Curtains"),
    ),
    "pop": Genre(
        8.5,
        _list(
            "Rihanna|Lady Gaga|Taylor Swift|Beyoncé|Lana Del Rey|Britney Spears|Madonna|Katy Perry|Adele|"
            "Ariana Grande|Kylie Minogue|Michael Jackson|P!nk|Justin Timberlake|Kesha|Marina"
        ),
        _list("Hearts|Diamonds|Glitter|Candy|Starlight|Kisses|Sparkle|Sugar"),
    ),
    "hip-hop": Genre(
        7.0,
        _list(
            "Drake|Kanye West|Kendrick Lamar|Eminem|Tyler, the Creator|JAY-Z|A$AP Rocky|2Pac|The Notorious B.I.G.|"
            'MF DOOM|Wu-Tang Clan|Nas|OutKast|Gang Starr|Lil Wayne|Nas & Damian "Jr. Gong" Marley'
        ),
        _list("Cypher|Hustlers|Flow|Beatz|Mob|Scholars|Block|Kingpins"),
    ),
    "heavy metal": Genre(
        5.0,
        _list(
            "Metallica|Iron Maiden|Black Sabbath|Judas Priest|Megadeth|Slayer|Motörhead|Nightwish|"
            "Pantera|Ozzy Osbourne|"
            "Dio|Manowar|Blind Guardian|Helloween|Queensrÿche|Sabaton"
        ),
        _list("Steel|Warriors|Hammer|Dragons|Fortress|Anvil|Crusaders|Chariots"),
    ),
    "extreme metal": Genre(
        4.0,
        _list(
            "In Flames|Opeth|Katatonia|Amon Amarth|Children of Bodom|Dimmu Borgir|Behemoth|Death|"
            "Burzum|Dark Tranquillity|"
            "Cannibal Corpse|Arch Enemy|Mayhem|Blut aus Nord|Månegarm|Finntroll"
        ),
        _list("Crypt|Ravens|Frostbite|Tombs|Wolves|Pestilence|Blight|Nekros"),
    ),
    "alternative metal": Genre(
        5.0,
        _list(
            "System of a Down|Linkin Park|Muse|Tool|Deftones|Slipknot|Korn|Marilyn Manson|Nine Inch Nails|"
            "Rage Against the Machine|Evanescence|Limp Bizkit|Disturbed|Papa Roach|Three Days Grace|Mudvayne"
        ),
        _list("Fracture|Asylum|Static|Riot|Venom|Voltage|Rust|Scars"),
    ),
    "electronica": Genre(
        5.0,
        _list(
            "Massive Attack|Aphex Twin|Boards of Canada|Portishead|The Prodigy|Burial|Moby|Bonobo|"
            "Four Tet|Squarepusher|"
            "Autechre|Björk|Amon Tobin|DJ Shadow|Röyksopp|µ-Ziq"
        ),
        _list("Circuit|Modular|Signals|Oscillators|Pixels|Vector|Quanta|Analog"),
    ),
    "dance": Genre(
        4.5,
        _list(
            "Daft Punk|Gorillaz|Justice|Air|deadmau5|The Chemical Brothers|M83|Hot Chip|LCD Soundsystem|Calvin Harris|"
            "Avicii|Above & Beyond|David Guetta|Skrillex|Tiësto|Stromae"
        ),
        _list("Discotheque|Strobes|Basslines|Rave|Turntables|Dancefloor|Lasers|Groove"),
    ),
    "post-rock": Genre(
        3.5,
        _list(
            "Sigur Rós|Mogwai|Explosions in the Sky|Godspeed You! Black Emperor|God Is an Astronaut|Max Richter|"
            "Ólafur Arnalds|múm|This Will Destroy You|65daysofstatic|Tortoise|Slint|Russian Circles|Hammock|"
            "Stars of the Lid|Talk Talk"
        ),
        _list("Horizons|Glaciers|Satellites|Cathedrals|Tides|Aurora|Monoliths|Harbours"),
    ),
    "folk": Genre(
        5.0,
        _list(
            "Bon Iver|Sufjan Stevens|Bob Dylan|Elliott Smith|Fleet Foxes|Nick Drake|Johnny Cash|Leonard Cohen|"
            "Belle and Sebastian|Iron & Wine|Neil Young|Mumford & Sons|Joni Mitchell|Beirut|José González|"
            "Nick Cave & the Bad Seeds"
        ),
        _list("Meadows|Sparrows|Orchards|Willows|Rivers|Fiddlers|Cabin|Hollow"),
    ),
    "pop punk": Genre(
        5.0,
        _list(
            "Paramore|blink-182|Green Day|Fall Out Boy|My Chemical Romance|Panic! at the Disco|Weezer|Brand New|"
            "Jimmy Eat World|Sum 41|The Offspring|Bring Me the Horizon|Rise Against|A Day to Remember|"
            'They Might Be Giants|"Weird Al" Yankovic'
        ),
        _list("Skaters|Lockers|Detention|Hoodies|Crushes|Sneakers|Summers|Dropouts"),
    ),
    "jazz": Genre(
        2.5,
        _list(
            "Miles Davis|John Coltrane|Nina Simone|Frank Sinatra|Louis Armstrong|Billie Holiday|Norah Jones|Chet Baker|"
            "Charles Mingus|Bill Evans|Thelonious Monk|Herbie Hancock|Ella Fitzgerald|Django Reinhardt|"
            "Earl Hines, Ray Brown & Elvin Jones|Esbjörn Svensson Trio"
        ),
        _list("Trio|Quartet|Swing|Bebop|Sextet|Nocturnes|Brass|Standards"),
    ),
    "classical": Genre(
        2.5,
        _list(
            "Hans Zimmer|Ludwig van Beethoven|Johann Sebastian Bach|Wolfgang Amadeus Mozart|"
            "Frédéric Chopin|Ludovico Einaudi|"
            "Claude Debussy|Philip Glass|Yann Tiersen|Antonio Vivaldi|John Williams|Howard Shore|Ennio Morricone|"
            "Antonín Dvořák|Arvo Pärt|Erik Satie"
        ),
        _list("Philharmonic|Ensemble|Consort|Orchestra|Sinfonietta|Choir|Camerata|Symphony"),
    ),
    "soul": Genre(
        4.0,
        _list(
            "The Weeknd|Frank Ocean|Amy Winehouse|Stevie Wonder|Marvin Gaye|Erykah Badu|Earth, Wind & Fire|Prince|"
            "Alicia Keys|James Brown|Janelle Monáe|Bill Withers|Sade|D'Angelo|Kool & the Gang|Blood, Sweat & Tears"
        ),
        _list("Soul|Gospel|Motown|Honey|Temptresses|Rhythm|Satin|Lovers"),
    ),
    "nineties rock": Genre(
        5.0,
        _list(
            "Nirvana|Coldplay|Red Hot Chili Peppers|The Smashing Pumpkins|Oasis|Pixies|Placebo|Pearl Jam|Foo Fighters|"
            "Queens of the Stone Age|Blur|Sonic Youth|Alice in Chains|R.E.M.|Hüsker Dü|Pulp"
        ),
        _list("Flannel|Garage|Feedback|Distortion|Cassettes|Fuzz|Slackers|Pedals"),
    ),
    "Brazilian": Genre(
        1.0,
        _list(
            "Legião Urbana|Los Hermanos|Caetano Veloso|Marisa Monte|Chico Buarque|Elis Regina|Pitty|"
            "Anitta|Pabllo Vittar|"
            "Gilberto Gil|Racionais MC's|Tim Maia|Novos Baianos|Criolo|Nação Zumbi|Jorge Ben Jor"
        ),
        _list("Saudade|Sertão|Carnaval|Ipanema|Coração|Tropicália|Favela|Maracujá"),
    ),
    "German": Genre(
        0.8,
        _list(
            "Rammstein|Die Ärzte|Die Toten Hosen|Kraftwerk|K.I.Z|Casper|Die Fantastischen Vier|Herbert Grönemeyer|"
            "Peter Fox|Wir sind Helden|Tocotronic|Kraftklub|Einstürzende Neubauten|Böhse Onkelz|Sportfreunde Stiller|"
            "Element of Crime"
        ),
        _list("Nächte|Kapelle|Brüder|Mädchen|Straße|Träumer|Kometen|Großstadt"),
    ),
    "Russian": Genre(
        0.8,
        _list(
            "Кино|Земфира|Би-2|Сплин|ДДТ|Аквариум|Король и Шут|Ленинград|Мумий Тролль|Гражданская оборона|"
            "Наутилус Помпилиус|Агата Кристи|Oxxxymiron|Ногу свело!|Алиса|Пикник"
        ),
        _list("Оркестр|Звёзды|Голоса|Север|Корабли|Дети|Ветер|Рассвет"),
        "Cyrillic",
    ),
    "Japanese": Genre(
        1.2,
        _list(
            "宇多田ヒカル|浜崎あゆみ|Perfume|椎名林檎|ONE OK ROCK|BUMP OF CHICKEN|久石譲|L'Arc~en~Ciel|"
            "X JAPAN|DIR EN GREY|"
            "東京事変|米津玄師|the GazettE|きゃりーぱみゅぱみゅ|倉木麻衣|菅野よう子"
        ),
        _list("楽団|少女|電波|花火|夜空|東京|物語|銀河"),
        "Kana",
    ),
    "Korean": Genre(
        1.2,
        _list(
            "BTS|소녀시대|BIGBANG|EXO|SHINee|BLACKPINK|2NE1|f(x)|TWICE|Red Velvet|아이유|Super Junior|(여자)아이들|"
            "MAMAMOO|Epik High|서태지와 아이들"
        ),
        _list("소년단|밴드|별빛|바다|걸스|하늘|나비|서울"),
        "Hangul",
    ),
    "Polish": Genre(
        0.5,
        _list(
            "Myslovitz|Kult|Dżem|Lady Pank|Happysad|Hey|Coma|Strachy na Lachy|O.S.T.R.|Czesław Niemen|Artur Rojek|"
            "Brodka|Riverside|Paktofonika|T.Love|Maanam"
        ),
        _list("Księżyc|Żaglowce|Podwórko|Jesień|Wrocław|Piosenki|Łąka|Słońce"),
    ),
    "Latin": Genre(
        1.5,
        _list(
            "Soda Stereo|Shakira|Manu Chao|Café Tacvba|Gustavo Cerati|Zoé|Bad Bunny|"
            "Julieta Venegas|Héroes del Silencio|"
            "Calle 13|Extremoduro|Vetusta Morla|Maná|Natalia Lafourcade|Charly García|ROSALÍA"
        ),
        _list("Corazones|Fuego|Callejón|Luna|Mañana|Rebeldes|Ñandú|Pájaros"),
    ),
}

WORLD_FAMOUS = _list(
    "Radiohead|The Beatles|Coldplay|Drake|Pink Floyd|Rihanna|David Bowie|Arctic Monkeys|Muse|Metallica|Lady Gaga|"
    "Taylor Swift|Kanye West|The Cure|Queen|Daft Punk|Nirvana|Depeche Mode|Lana Del Rey|Beyoncé|Linkin Park|"
    "Red Hot Chili Peppers|Led Zeppelin|Eminem|System of a Down|The Smiths|Kendrick Lamar|Gorillaz|Arcade Fire|"
    "Britney Spears|The Rolling Stones|Sigur Rós|Massive Attack|Iron Maiden|Paramore|Madonna|Björk|Adele|The Weeknd|"
    "Placebo|Oasis|The Strokes|Green Day|The xx|Amy Winehouse|Rammstein|Nine Inch Nails|Bob Dylan"
)
"""Artists heard everywhere, whatever the genre of the listener, from the most loved down."""

SYLLABLES = {
    "Latin": tuple(c + v for c in "bdfghjklmnprstvz" for v in "aeio"),
    "Cyrillic": tuple(c + v for c in "бвгджзклмнпрстфх" for v in "аеио"),
    "Kana": tuple(
        "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわアイウエオカキクケコサシスセソタチツテト"
    ),
    "Hangul": tuple(
        "가나다라마바사아자차카타파하고노도로모보소오조초코토포호구누두루무부수우주추쿠투푸후"
        "기니디리미비시이지치키티피히은들봄길빛숲강산"
    ),
}
"""64 syllables of equal length in each script: a word of two of them and an ending can be read in one way only."""

ENDINGS = {
    "Latin": _list("|n|r|s|l|x|t|k|m|d|sh|th|na|ra|la|va|ta|no|ro|to|by|é|ø|ü|ão|ck|ton|son|ley|man|wood|ette"),
    "Cyrillic": _list(
        "|н|р|с|л|й|на|ра|ла|ва|но|ро|ов|ин|ев|ская|ский|ник|ка|чик|ец|ыч|ль|ть|ша|ня|ца|град|мир|слав|вич|ёк"
    ),
    "Kana": _list("|ン|子|木|川|山|田|村|島|原|本|野|谷|沢|丸|太|郎|美|香|奈|花|月|星|空|雪|海|光|音|風|森|舞|愛"),
    "Hangul": _list("|현|영|진|준|민|선|연|희|성|훈|빈|경|정|원|환|혁|석|철|환이|숙|옥|란|윤|찬|별|솔|샘|결|담|온|율"),
}
"""32 endings in each script, the first one empty."""

TEMPLATES = (
    ("", " ", "", 30),
    ("The ", " ", "", 12),
    ("", " & the ", "", 5),
    ("", " and the ", "", 4),
    ("", "'s ", "", 3),
    ("", "-", "", 2),
    ("", ", the ", "", 1),
    ('"', '" ', "", 1),
    ("", " ", ", Inc.", 1),
    ("", ' "', '"', 1),
    ("DJ ", " ", "", 2),
    ("", " + ", "", 1),
    ("", " (", ")", 1),
)
"""What stands before, between and after the two words of a made-up name, and how many in 64 names are made so."""

COUNTRIES = {
    "United States": 180.0,
    "United Kingdom": 95.0,
    "Brazil": 85.0,
    "Germany": 80.0,
    "Poland": 65.0,
    "Russian Federation": 65.0,
    "Finland": 22.0,
    "Netherlands": 22.0,
    "Spain": 22.0,
    "France": 20.0,
    "Sweden": 20.0,
    "Canada": 20.0,
    "Italy": 18.0,
    "Australia": 18.0,
    "Ukraine": 17.0,
    "Mexico": 16.0,
    "Japan": 14.0,
    "Turkey": 12.0,
    "Norway": 10.0,
    "Argentina": 10.0,
    "Chile": 9.0,
    "Belgium": 9.0,
    "Portugal": 8.0,
    "Czech Republic": 8.0,
    "Greece": 7.0,
    "Indonesia": 7.0,
    "Austria": 7.0,
    "Belarus": 6.0,
    "Hungary": 6.0,
    "Romania": 6.0,
    "Switzerland": 6.0,
    "Denmark": 5.5,
    "Colombia": 5.0,
    "Ireland": 5.0,
    "Bulgaria": 4.5,
    "Croatia": 4.0,
    "Serbia": 4.0,
    "India": 4.0,
    "New Zealand": 3.5,
    "Lithuania": 3.5,
    "Philippines": 3.5,
    "Latvia": 3.0,
    "Israel": 3.0,
    "Slovakia": 3.0,
    "Estonia": 2.5,
    "Peru": 2.5,
    "South Africa": 2.5,
    "Korea, Republic of": 2.0,
    "China": 2.0,
    "Iran, Islamic Republic of": 2.0,
    "Venezuela": 2.0,
    "Singapore": 1.8,
    "Slovenia": 1.8,
    "Malaysia": 1.6,
    "Taiwan": 1.6,
    "Hong Kong": 1.5,
    "Iceland": 1.2,
    "Thailand": 1.2,
    "Viet Nam": 1.0,
    "Costa Rica": 1.0,
    "Egypt": 0.8,
    "Georgia": 0.8,
    "Kazakhstan": 0.8,
    "Bosnia and Herzegovina": 0.8,
    "Macedonia": 0.7,
    "Uruguay": 0.7,
    "Ecuador": 0.7,
    "Moldova, Republic of": 0.6,
    "Guatemala": 0.5,
    "Luxembourg": 0.5,
} | dict.fromkeys(
    _list(
        "Afghanistan|Albania|Algeria|American Samoa|Andorra|Angola|Anguilla|Antarctica|Antigua and Barbuda|"
        "Armenia|Aruba|"
        "Azerbaijan|Bahamas|Bahrain|Bangladesh|Barbados|Belize|Benin|Bermuda|Bhutan|Bolivia|Botswana|Bouvet Island|"
        "British Indian Ocean Territory|Brunei Darussalam|Burkina Faso|Burundi|Cambodia|Cameroon|Cape Verde|"
        "Cayman Islands|Central African Republic|Chad|Christmas Island|Cocos (Keeling) Islands|Comoros|Congo|"
        "Congo, the Democratic Republic of the|Cook Islands|Côte d'Ivoire|Cuba|Cyprus|Djibouti|Dominica|"
        "Dominican Republic|El Salvador|Equatorial Guinea|Eritrea|Ethiopia|Falkland Islands (Malvinas)|Faroe Islands|"
        "Fiji|French Guiana|French Polynesia|French Southern Territories|Gabon|Gambia|Ghana|Gibraltar|"
        "Greenland|Grenada|"
        "Guadeloupe|Guam|Guinea|Guinea-Bissau|Guyana|Haiti|Heard Island and McDonald Islands|"
        "Holy See (Vatican City State)|Honduras|Iraq|Jamaica|Jordan|Kenya|Kiribati|"
        "Korea, Democratic People's Republic of|Kuwait|Kyrgyzstan|Lao People's Democratic Republic|Lebanon|Lesotho|"
        "Liberia|Libyan Arab Jamahiriya|Liechtenstein|Macao|Madagascar|Malawi|Maldives|Mali|Malta|Marshall Islands|"
        "Martinique|Mauritania|Mauritius|Mayotte|Micronesia, Federated States of|Monaco|Mongolia|Montenegro|Montserrat|"
        "Morocco|Mozambique|Myanmar|Namibia|Nauru|Nepal|Netherlands Antilles|New Caledonia|Nicaragua|Niger|"
        "Nigeria|Niue|"
        "Norfolk Island|Northern Mariana Islands|Oman|Pakistan|Palau|Palestinian Territory, Occupied|Panama|"
        "Papua New Guinea|Paraguay|Pitcairn|Puerto Rico|Qatar|Réunion|Rwanda|Saint Barthélemy|Saint Helena|"
        "Saint Kitts and Nevis|Saint Lucia|Saint Pierre and Miquelon|Saint Vincent and the Grenadines|Samoa|San Marino|"
        "Sao Tome and Principe|Saudi Arabia|Senegal|Seychelles|Sierra Leone|Solomon Islands|Somalia|"
        "South Georgia and the South Sandwich Islands|Sri Lanka|Sudan|Suriname|Svalbard and Jan Mayen|Swaziland|"
        "Syrian Arab Republic|Tajikistan|Tanzania, United Republic of|Timor-Leste|Togo|Tokelau|Tonga|"
        "Trinidad and Tobago|Tunisia|Turkmenistan|Turks and Caicos Islands|Tuvalu|Uganda|United Arab Emirates|"
        "United States Minor Outlying Islands|Uzbekistan|Vanuatu|Virgin Islands, British|Virgin Islands, U.S.|"
        "Wallis and Futuna|Western Sahara|Yemen|Zambia|Zimbabwe|Åland Islands"
    ),
    0.1,
)
"""Countries by the long English ISO 3166 names Last.fm uses, and how many users each has in relation to the others."""

HOME_GENRES = {
    "Brazilian": {"Brazil": 25.0, "Portugal": 5.0},
    "German": {"Germany": 40.0, "Austria": 35.0, "Switzerland": 20.0, "Luxembourg": 6.0, "Liechtenstein": 15.0},
    "Russian": {
        "Russian Federation": 28.0,
        "Ukraine": 18.0,
        "Belarus": 25.0,
        "Kazakhstan": 20.0,
        "Moldova, Republic of": 12.0,
        "Latvia": 8.0,
        "Estonia": 6.0,
    },
    "Japanese": {"Japan": 30.0, "Taiwan": 6.0, "Hong Kong": 5.0},
    "Korean": {"Korea, Republic of": 25.0, "Philippines": 8.0, "Indonesia": 8.0, "Singapore": 6.0, "Viet Nam": 8.0},
    "Polish": {"Poland": 40.0},
    "Latin": {
        "Mexico": 15.0,
        "Argentina": 18.0,
        "Chile": 15.0,
        "Spain": 15.0,
        "Colombia": 15.0,
        "Peru": 15.0,
        "Venezuela": 12.0,
        "Uruguay": 12.0,
        "Costa Rica": 10.0,
        "Ecuador": 12.0,
        "Guatemala": 12.0,
    },
    "extreme metal": {"Finland": 3.5, "Sweden": 2.5, "Norway": 3.0, "Greece": 2.0},
    "heavy metal": {"Finland": 2.5, "Greece": 2.0, "Germany": 1.5, "Chile": 2.0},
    "post-rock": {"Iceland": 4.0, "Belgium": 1.5},
    "dance": {"France": 3.0, "Netherlands": 2.0, "Belgium": 2.5},
    "hip-hop": {"United States": 1.5, "Canada": 1.5},
}
"""How many times as common a genre is in a country as elsewhere."""
