import matplotlib
import matplotlib.pyplot as plt
import numpy as np

x = np.linspace(0, 2 * np.pi, 50)
figure, axes = plt.subplots(figsize=(3, 2))
axes.plot(x, np.sin(x), label="sin")
axes.legend()
axes.set_title("Wave")
figure.savefig("wave.png", dpi=60)
plt.show()

print("backend", matplotlib.get_backend().lower())
with open("wave.png", "rb") as file:
    print("wave.png: PNG", file.read(8) == b"\x89PNG\r\n\x1a\n")
