from PIL import Image, ImageDraw, ImageFilter

image = Image.new("RGB", (128, 128), "white")
draw = ImageDraw.Draw(image)
draw.ellipse((16, 16, 112, 112), fill=(255, 0, 0))
draw.text((4, 4), "qila", fill="black")
image.resize((64, 64)).filter(ImageFilter.SHARPEN).save("thumb.png")

thumb = Image.open("thumb.png")
print("saved", thumb.format, thumb.size, thumb.mode)
print("centre:", thumb.getpixel((32, 32)))
print("grey:", thumb.convert("L").getpixel((32, 32)))
