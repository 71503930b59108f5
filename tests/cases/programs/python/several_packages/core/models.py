from dataclasses import dataclass


@dataclass
class Order:
    customer: str
    items: list
