const { readFileSync } = require('fs');
const { PDFDocument, StandardFonts } = require('pdf-lib');
const writeXlsxFile = require('write-excel-file/node');

async function main() {
  const pdf = await PDFDocument.create();
  pdf.setTitle('Report');
  const font = await pdf.embedFont(StandardFonts.Helvetica);
  pdf.addPage().drawText('Total: 60', { x: 50, y: 500, font });
  pdf.addPage();
  const again = await PDFDocument.load(await pdf.save());
  console.log(`pdf: ${again.getPageCount()} pages, title ${again.getTitle()}`);

  const rows = [
    [{ value: 'item' }, { value: 'price' }],
    [{ type: String, value: 'lamp' }, { type: Number, value: 20 }],
  ];
  await writeXlsxFile(rows, { filePath: 'report.xlsx' });
  console.log('xlsx:', readFileSync('report.xlsx').subarray(0, 2).toString());
}

main();
