def total(order):
    return sum(price for _, price in order.items)
