import 'reflect-metadata';

enum Gate {
  East = 1,
  West,
}

function traced(target: object, key: string, descriptor: PropertyDescriptor): void {
  const original = descriptor.value;
  descriptor.value = function (this: unknown, ...values: unknown[]) {
    console.log(`call ${key}(${values.join(', ')})`);
    return original.apply(this, values);
  };
}

class Keeper {
  constructor(private readonly name: string) {}

  @traced
  open(gate: Gate): string {
    return `opened ${Gate[gate]} by ${this.name}`;
  }
}

console.log(`Gate.West = ${Gate.West}`);
console.log(new Keeper('Birbal').open(Gate.East));
