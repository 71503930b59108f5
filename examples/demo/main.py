# ruff: noqa: INP001, T201 - a program of its own, which prints
"""Uses four packages that no manifest names, without a network."""

import cv2
import numpy
import requests
import yaml
from sklearn.linear_model import LinearRegression

request = requests.Request("GET", "https://example.org/search", params={"q": "fort"}).prepare()
print("requests:", request.url)

settings = yaml.safe_load("{size: 8, points: [1, 2, 3, 4]}")
print("yaml:", settings)

image = numpy.zeros((settings["size"], settings["size"]), dtype=numpy.uint8)
cv2.rectangle(image, (2, 2), (5, 5), 255, -1)
print("cv2: white pixels", cv2.countNonZero(image))

points = numpy.array(settings["points"]).reshape(-1, 1)
model = LinearRegression().fit(points, 3 * points.ravel() + 1)
print("sklearn: 3 x 10 + 1 =", round(float(model.predict([[10]])[0])))
