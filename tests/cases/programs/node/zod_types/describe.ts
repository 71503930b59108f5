export interface Named {
  name: string;
  age: number;
}

export function describe<T extends Named>(person: T): string {
  return `${person.name} is ${person.age}`;
}
