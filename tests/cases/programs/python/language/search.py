# pip install snowballstemmer rapidfuzz
# pip install Unidecode
import snowballstemmer
from rapidfuzz import fuzz, process
from unidecode import unidecode

stemmer = snowballstemmer.stemmer("english")
print("stems:", *stemmer.stemWords("running runner runs".split()))

choices = ["kitten", "mitten", "sitting"]
best, score, _ = process.extractOne("kiten", choices, scorer=fuzz.ratio)
print(f"best: {best} ({score > 80})")
print(unidecode("Qíla"))
