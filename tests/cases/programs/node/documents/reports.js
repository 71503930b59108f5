const { readFileSync } = require('fs');
const { Document, HeadingLevel, Packer, Paragraph } = require('docx');
const writeXlsxFile = require('write-excel-file/node');

async function main() {
  const document = new Document({
    sections: [
      {
        children: [
          new Paragraph({ text: 'Quarterly report', heading: HeadingLevel.HEADING_1 }),
          new Paragraph('Total: 60'),
        ],
      },
    ],
  });
  const bytes = await Packer.toBuffer(document);
  console.log('docx:', bytes.subarray(0, 2).toString());

  const rows = [
    [{ value: 'item' }, { value: 'price' }],
    [{ type: String, value: 'lamp' }, { type: Number, value: 20 }],
  ];
  await writeXlsxFile(rows, { filePath: 'report.xlsx' });
  console.log('xlsx:', readFileSync('report.xlsx').subarray(0, 2).toString());
}

main();
