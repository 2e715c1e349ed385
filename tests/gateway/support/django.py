"""A portal in Django that knows nothing of a proxy: a form, and what becomes of it. Prints its port."""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

# This file is called like the package that it needs.
sys.path = [path for path in sys.path if not path.endswith("support")]

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path


def form(request):
    if request.method == "POST":
        return HttpResponse("saved " + request.POST["label"])
    return HttpResponse(f'<input name="csrfmiddlewaretoken" value="{get_token(request)}">')


def absolute(request):
    return HttpResponseRedirect(request.build_absolute_uri("/form"))


settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["iot.example.com", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
)
urlpatterns = [path("form", form), path("absolute", absolute), path("", lambda request: HttpResponse("start"))]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
