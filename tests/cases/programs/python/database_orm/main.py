from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = create_engine("sqlite:///library.db")
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)

with Session(engine) as session:
    session.add(Author(name="Premchand", books=[Book(title="Godaan"), Book(title="Gaban")]))
    session.commit()
    author = session.scalars(select(Author)).one()
    print(f"{author.name}: {', '.join(book.title for book in author.books)}")
    session.add(Author(name="Premchand"))
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        print("rolled back:", type(error).__name__)
    print("authors:", session.scalar(select(func.count()).select_from(Author)))
