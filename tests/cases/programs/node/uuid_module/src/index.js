import { v5, version } from 'uuid';

const id = v5('qila.example', v5.DNS);
console.log(`${id} is version ${version(id)}`);
