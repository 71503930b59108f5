from jinja2 import Template

from core.models import Order

LETTER = Template("Dear {{ order.customer }}, {{ order.items | length }} items, {{ total }} in total.")


def render(order: Order, total: int) -> str:
    return LETTER.render(order=order, total=total)
