"""Another program of the calendar's user, which waits to be asked for a password: adds an event, says what there is."""

import json
import sys

import caldav

url, token, certificate = sys.argv[1:]
EVENT = "\r\n".join(
    ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Other//EN", "BEGIN:VEVENT", "UID:three", "DTSTAMP:20261130T080000Z"]
    + ["DTSTART:20261202T080000Z", "SUMMARY:three", "END:VEVENT", "END:VCALENDAR", ""]
)

with caldav.DAVClient(url, username="ada", password=token, ssl_verify_cert=certificate) as client:
    (calendar,) = client.principal().calendars()
    calendar.save_event(EVENT)
    events = sorted(event.icalendar_component["uid"] for event in calendar.events())
    print(json.dumps({"calendars": [calendar.url.path.rstrip("/").split("/")[-1]], "events": events}))
