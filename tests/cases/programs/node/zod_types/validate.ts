import { z } from 'zod';

import { describe, type Named } from './describe.ts';

const Person = z.object({
  name: z.string().min(1),
  age: z.number().int().nonnegative(),
  email: z.string().regex(/^\S+@\S+$/),
});
type Person = z.infer<typeof Person>;

const good: Person = Person.parse({ name: 'Anarkali', age: 21, email: 'a@example.com' });
console.log(`ok: ${describe(good satisfies Named)}`);

const bad = Person.safeParse({ name: 'Salim', age: -1, email: 'nowhere' });
if (!bad.success) {
  console.log('rejected:', bad.error.issues.map((issue) => issue.path.join('.')).sort().join(', '));
}
