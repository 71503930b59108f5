import React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';

function Shelf({ things }: { things: string[] }) {
  return (
    <ul>
      {things.map((thing) => (
        <li key={thing}>{thing}</li>
      ))}
    </ul>
  );
}

console.log(renderToStaticMarkup(<Shelf things={['lamp', 'rope & hook']} />));
