from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", env_prefix="APP_")
    port: int = 8000


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)]
    email: Annotated[str, Field(pattern=r"^\S+@\S+$")]


print("port", Settings().port)
try:
    Person.model_validate({"name": "Ravi", "age": -1, "email": "nowhere"})
except ValidationError as error:
    for problem in error.errors():
        print(f"{problem['loc'][0]}: {problem['msg']}")
