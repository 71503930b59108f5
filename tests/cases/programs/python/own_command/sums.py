from more_itertools import chunked


def main(name):
    print(name, [sum(chunk) for chunk in chunked(range(1, 7), 3)])


if __name__ == "__main__":
    main("main")
