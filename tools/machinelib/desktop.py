"""What a desktop has and a server has not: GTK 4 with libadwaita, PyGObject, an X server without a screen."""

from __future__ import annotations

from machinelib.addon import AddOn

_PACKAGES = (
    *("gir1.2-gtk-4.0", "gir1.2-adw-1", "adwaita-icon-theme", "librsvg2-common"),
    *("fonts-cantarell", "fonts-dejavu-core", "xvfb"),
    *("at-spi2-core", "gir1.2-atspi-2.0"),
    *("python3-gi", "libglib2.0-bin", "python3-dasbus"),
)
# A software renderer for OpenGL, of which Xvfb has a need on paper only: more than half of all the bytes.
_NOT_NEEDED = ("mesa-libgallium", "libllvm19", "libz3-4")

# Nothing moves, so that a picture of a window is the same every time.
_SETTINGS = "[Settings]\\ngtk-font-name=Cantarell 11\\ngtk-enable-animations=false\\n"

# What the triggers of these packages make. Fonts are looked at now, so that no program does at its start.
_COMMANDS = (
    "glib-compile-schemas /usr/share/glib-2.0/schemas",
    "update-mime-database /usr/share/mime",
    "$(ls /usr/lib/*/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders) --update-cache",
    "fc-cache --system-only",
    "ldconfig -X",
    f"mkdir -p /etc/gtk-4.0 && printf '{_SETTINGS}' > /etc/gtk-4.0/settings.ini",
)

DESKTOP = AddOn("desktop", _PACKAGES, _NOT_NEEDED, _COMMANDS)
