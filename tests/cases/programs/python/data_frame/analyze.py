import sys

import numpy as np
import pandas as pd

df = pd.read_csv(sys.argv[1])
df["total"] = df["units"] * df["price"]

print("Totals by region")
for region, total in df.groupby("region")["total"].sum().items():
    print(f"{region:<8} {total}")

pivot = df.pivot_table(index="region", columns="product", values="total", aggfunc="sum", fill_value=0)
print(pivot.shape)

values = df["total"].to_numpy()
z = (values - values.mean()) / values.std()
print("z-scores:", [float(v) for v in np.round(z, 2)])
