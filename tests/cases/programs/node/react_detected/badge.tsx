import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

const Badge: React.FC<{ number: number }> = ({ number }) => <b title={String(number)}>gate {number}</b>;

console.log(renderToStaticMarkup(<Badge number={7} />).replace(/<!-- -->/g, ''));
