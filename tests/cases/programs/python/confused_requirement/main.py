from sklearn.linear_model import LinearRegression

print(LinearRegression().fit([[0], [1]], [1, 3]).coef_)
