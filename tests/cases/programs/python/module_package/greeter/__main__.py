import argparse

from .art import banner

parser = argparse.ArgumentParser(prog="greeter")
parser.add_argument("--name", required=True)
arguments = parser.parse_args()
print(__spec__.name, "in", __package__)
print("figlet lines:", len(banner(arguments.name).splitlines()))
