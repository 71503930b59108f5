from pathlib import Path

from config.loader import load
from core.models import Order
from utils import total
from views.letter import render

settings = load(Path(__file__).parent / "config" / "orders.yaml")
order = Order(**settings["order"])
print(render(order, total(order)))
