"""The web page of app.py: pictures in, scores and heat maps out. Only the module `interface` needs Gradio."""
