export class Order {
  constructor(customer, items) {
    this.customer = customer;
    this.items = items;
  }

  get total() {
    return this.items.reduce((sum, [, price]) => sum + price, 0);
  }
}
