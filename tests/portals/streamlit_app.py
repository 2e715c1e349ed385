"""What the portal suite uses of Streamlit: widgets over the WebSocket, files in and out, and a fragment that never ends."""

import streamlit as st

st.title("Readings")
st.text_input("Filter", key="filter")
st.write(f"Filtered by: {st.session_state['filter'] or 'nothing'}")

taken = st.file_uploader("Readings")
if taken is not None:
    content = taken.getvalue()
    st.write(f"{len(content)} bytes")
    st.download_button("Fetch", content, file_name="fetched.bin")


@st.fragment(run_every=0.5)
def clock():
    st.session_state["ticks"] = st.session_state.get("ticks", 0) + 1
    st.write(f"Ticks: {st.session_state['ticks']}")


clock()
