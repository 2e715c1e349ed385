"""An application on Dash: every input is a request, and its answer changes the page."""

import sys

import dash

app = dash.Dash("pumps", title="Pumps")
app.layout = dash.html.Main(
    [
        dash.html.H1("Pumps"),
        dash.html.Label(["Notes", dash.dcc.Textarea(id="notes")]),
        dash.html.Label(["Pump", dash.dcc.Input(id="pump", type="text")]),
        dash.html.P(id="said"),
    ]
)


@app.callback(dash.Output("said", "children"), dash.Input("pump", "value"), dash.State("notes", "value"))
def say(pump, notes):
    """Repeats what has been typed."""
    return f"Pump {pump or 'none'}: {notes or 'no notes'}"


app.run(host="127.0.0.1", port=sys.argv[1], debug=False)
