import openpyxl
from docx import Document
from fpdf import FPDF
from pypdf import PdfReader

book = openpyxl.Workbook()
sheet = book.active
for row in [("item", "price"), ("lamp", 20), ("rope", 40)]:
    sheet.append(row)
book.save("report.xlsx")
read = openpyxl.load_workbook("report.xlsx").active
total = sum(cell.value for cell in read["B"][1:])
print("xlsx:", total)

document = Document()
document.add_heading("Quarterly report", level=1)
document.add_paragraph(f"Total: {total}")
document.save("report.docx")
print("docx:", Document("report.docx").paragraphs[0].text)

pdf = FPDF()
pdf.add_page()
pdf.set_font("Helvetica", size=12)
pdf.cell(text=f"Total: {total}")
pdf.output("report.pdf")
pages = PdfReader("report.pdf").pages
print(f"pdf: {len(pages)} page, {pages[0].extract_text().strip()}")
