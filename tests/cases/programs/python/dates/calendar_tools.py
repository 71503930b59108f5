from datetime import date, datetime, timezone

import pytz
from dateutil.parser import parse
from dateutil.relativedelta import relativedelta
from dateutil.rrule import FR, MO, WE, WEEKLY, rrule

leap = date(2024, 2, 29)
print(leap, "+ 1 year =", leap + relativedelta(years=1))

moment = parse("29 Feb 2024 22:00").replace(tzinfo=timezone.utc)
print(moment.astimezone(pytz.timezone("Asia/Kolkata")).strftime("%Y-%m-%d %H:%M %Z"))

days = rrule(WEEKLY, byweekday=(MO, WE, FR), dtstart=datetime(2024, 3, 1), count=3)
print(", ".join(day.strftime("%a") for day in days))
