from django.contrib import admin

from .models import Sim

admin.site.register(Sim)
