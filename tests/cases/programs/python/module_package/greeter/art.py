import pyfiglet


def banner(text: str) -> str:
    return pyfiglet.figlet_format(text)
