#!/usr/bin/env python3
"""A small panel for containers: lists them live, starts and stops them, also at login; pulls images, shows logs.

An example for application developers, to copy from: everything that it knows of containers comes over the session
bus from org.usercontainer1 (see org.usercontainer1(5)), by nothing but GIO. It needs GTK 4, libadwaita 1.6 and
PyGObject:

    dnf install gtk4 libadwaita python3-gobject                 # Fedora
    apt install gir1.2-adw-1 python3-gi                         # Debian

What it does can be done from outside, too, since GTK puts the actions of an application on the bus:

    gapplication action org.example.ContainerPanel start "'web'"
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from typing import Any

import gi

gi.require_version("Adw", "1")
gi.require_version("Gtk", "4.0")
from gi.repository import Adw, Gio, GLib, Gtk, Pango  # noqa: E402

NAME = "org.usercontainer1"
ROOT = "/org/usercontainer1"
MANAGER = f"{NAME}.Manager"
CONTAINER = f"{NAME}.Container"
JOB = f"{NAME}.Job"

LOG_LINES = 500  # of the past that are asked for
MAX_LOG_LINES = 5000  # that are kept
NO_TIMEOUT = GLib.MAXINT32  # a start may pull an image first: it takes as long as it takes

# What a job does, in words for people.
PHASES = {
    "exists": "Here already",
    "wait": "Waiting for another pull",
    "download": "Downloading",
    "unpack": "Unpacking",
    "store": "Finishing",
}

# How a state looks: icon, style class, whether it counts as alive.
STATES = {
    "created": ("media-playback-stop-symbolic", "dim-label", False),
    "starting": ("content-loading-symbolic", "accent", True),
    "running": ("media-playback-start-symbolic", "success", True),
    "paused": ("media-playback-pause-symbolic", "warning", True),
    "stopping": ("content-loading-symbolic", "accent", True),
    "restarting": ("view-refresh-symbolic", "warning", True),
    "exited": ("media-playback-stop-symbolic", "dim-label", False),
    "failed": ("dialog-error-symbolic", "error", False),
    "invalid": ("dialog-warning-symbolic", "warning", False),
}

ACTIONS = {
    "start": "media-playback-start-symbolic",
    "restart": "view-refresh-symbolic",
    "stop": "media-playback-stop-symbolic",
}


# --- The bus -------------------------------------------------------------------------------------------------------


def read(proxy: Gio.DBusProxy, name: str) -> Any:
    """A property: GIO keeps them up to date by the service's signals, so that this asks nobody."""
    value = proxy.get_cached_property(name)
    return None if value is None else value.unpack()


def call(
    proxy: Gio.DBusProxy,
    method: str,
    arguments: GLib.Variant | None = None,
    *,
    done: Callable[[Any], None] | None = None,
    failed: Callable[[str], None],
) -> None:
    """Call a method without waiting for it. Every method of the service takes options last: here there are none."""

    def finish(proxy: Gio.DBusProxy, result: Gio.AsyncResult) -> None:
        try:
            answer = proxy.call_finish(result)
        except GLib.Error as error:
            failed(explain(error))
            return
        if done is not None:
            done(answer.unpack())

    arguments = arguments or GLib.Variant("(a{sv})", ({},))
    proxy.call(method, arguments, Gio.DBusCallFlags.NONE, NO_TIMEOUT, None, finish)


def explain(error: GLib.Error) -> str:
    """The message of an error, which the service writes for people, without GIO's prefix."""
    return error.message.removeprefix(f"GDBus.Error:{Gio.DBusError.get_remote_error(error)}: ")


# --- The list ------------------------------------------------------------------------------------------------------


class ContainerRow(Adw.ActionRow):
    """One container. The row follows the properties of its object; it remembers nothing of its own."""

    def __init__(self, proxy: Gio.DBusProxy) -> None:
        self.proxy = proxy
        self.name = read(proxy, "Name")
        super().__init__(title=self.name, use_markup=False, activatable=True)
        self.set_detailed_action_name(f"app.show::{self.name}")
        self.set_subtitle_lines(2)

        self.icon = Gtk.Image()
        self.spinner = Adw.Spinner()
        self.prefix = Gtk.Stack(valign=Gtk.Align.CENTER)
        self.prefix.add_named(self.icon, "icon")
        self.prefix.add_named(self.spinner, "spinner")
        self.add_prefix(self.prefix)

        self.buttons = make_buttons(self.name)
        for button in self.buttons.values():
            self.add_suffix(button)
        self.add_suffix(Gtk.Image(icon_name="go-next-symbolic", css_classes=["dim-label"]))
        self.update()

    def update(self) -> None:
        """Show what the properties say now."""
        state = read(self.proxy, "State")
        icon, style, _ = STATES.get(state, STATES["created"])
        if explain_failure(self.proxy):
            icon, style = "dialog-error-symbolic", "error"
        self.icon.set_from_icon_name(icon)
        self.icon.set_css_classes([style])
        self.prefix.set_visible_child_name("spinner" if icon == "content-loading-symbolic" else "icon")
        self.set_subtitle(describe(self.proxy))
        show_buttons(self.buttons, state)


def make_buttons(name: str) -> dict[str, Gtk.Button]:
    """Flat buttons that activate actions of the application, for what can be done with a container."""
    buttons = {}
    for action, icon in ACTIONS.items():
        button = Gtk.Button(icon_name=icon, tooltip_text=action.capitalize(), css_classes=["flat"])
        button.set_valign(Gtk.Align.CENTER)
        button.set_action_name(f"app.{action}")
        button.set_action_target_value(GLib.Variant("s", name))
        buttons[action] = button
    return buttons


def show_buttons(buttons: dict[str, Gtk.Button], state: str) -> None:
    """Only what can be done with a container in this state."""
    _, _, alive = STATES.get(state, STATES["created"])
    buttons["start"].set_visible(not alive)
    buttons["start"].set_sensitive(state != "invalid")
    buttons["restart"].set_visible(state in ("running", "paused"))
    buttons["stop"].set_visible(alive)


def describe(proxy: Gio.DBusProxy) -> str:
    """The state in words: what the container says of itself where it says something."""
    state = read(proxy, "State")
    image = read(proxy, "Image")
    error = read(proxy, "LastError")
    text = read(proxy, "StatusText")
    status = read(proxy, "ExitStatus")
    if error and state != "exited":
        return f"{state.capitalize()}: {error}"
    if state in ("starting", "restarting") and text:
        return f"{state.capitalize()}: {text}"
    if state == "exited" and status > 0:
        return f"Exited with status {status} · {image}"
    parts = [state.capitalize(), image, *map(describe_port, read(proxy, "Ports"))]
    if read(proxy, "UpdateAvailable"):
        parts.append("newer image here")
    return " · ".join(parts)


def describe_port(port: tuple[str, int, int, int, str]) -> str:
    """Where a published port is to be reached, as a browser takes it."""
    address, host, _inside, count, protocol = port
    place = "localhost" if address in ("0.0.0.0", "::", "127.0.0.1", "::1") else address  # noqa: S104
    last = f"-{host + count - 1}" if count > 1 else ""
    return f"{place}:{host}{last}" + ("" if protocol == "tcp" else f"/{protocol}")


def explain_failure(proxy: Gio.DBusProxy) -> str:
    """Why a container failed, nothing if it has not. By a signal (128 and more) is how a stop may end."""
    state, status = read(proxy, "State"), read(proxy, "ExitStatus")
    if state in ("failed", "invalid"):
        return read(proxy, "LastError") or "it could not be started"
    return f"it exited with status {status}" if state == "exited" and 0 < status < 128 else ""


# --- One container and its log -------------------------------------------------------------------------------------


class ContainerPage(Adw.NavigationPage):
    """A container's state, and its log as it grows."""

    def __init__(self, proxy: Gio.DBusProxy) -> None:
        self.proxy = proxy
        self.name = read(proxy, "Name")
        super().__init__(title=self.name)
        self.cancellable = Gio.Cancellable()
        self.following = False

        header = Adw.HeaderBar()
        self.buttons = make_buttons(self.name)
        for button in reversed(self.buttons.values()):
            header.pack_end(button)
        self.banner = Adw.Banner(use_markup=False)

        self.buffer = Gtk.TextBuffer()
        self.view = Gtk.TextView(
            buffer=self.buffer,
            editable=False,
            cursor_visible=False,
            monospace=True,
            wrap_mode=Gtk.WrapMode.WORD_CHAR,
            left_margin=12,
            right_margin=12,
            top_margin=12,
            bottom_margin=12,
        )
        self.scroller = Gtk.ScrolledWindow(child=self.view, vexpand=True)
        self.empty = Adw.StatusPage(
            icon_name="document-open-recent-symbolic",
            title="Nothing Written",
            description="What the container writes appears here.",
        )
        self.stack = Gtk.Stack(transition_type=Gtk.StackTransitionType.CROSSFADE)
        self.stack.add_named(self.empty, "empty")
        self.stack.add_named(self.scroller, "log")

        # Who moves it asks for something; it shows what is so once the service says that it is.
        self.autostart = Gtk.Switch(valign=Gtk.Align.CENTER)
        self.on_switched = self.autostart.connect("state-set", self.switch_autostart)
        row = Adw.ActionRow(
            title="Start With the Session",
            subtitle="Whenever you log in",
            activatable_widget=self.autostart,
        )
        row.add_suffix(self.autostart)
        rows = Gtk.ListBox(selection_mode=Gtk.SelectionMode.NONE)
        rows.append(row)

        layout = Adw.ToolbarView(content=self.stack, bottom_bar_style=Adw.ToolbarStyle.RAISED)
        layout.add_top_bar(header)
        layout.add_top_bar(self.banner)
        layout.add_bottom_bar(rows)
        self.set_child(layout)
        self.connect("hidden", lambda _page: self.cancellable.cancel())
        self.open_log()
        self.update()

    def update(self) -> None:
        """Show what the properties say now."""
        show_buttons(self.buttons, read(self.proxy, "State"))
        failure = explain_failure(self.proxy)
        self.banner.set_title(f"This container failed: {failure}")
        self.banner.set_revealed(bool(failure))
        enabled = bool(read(self.proxy, "Autostart"))
        with self.autostart.handler_block(self.on_switched):
            self.autostart.set_active(enabled)
            self.autostart.set_state(enabled)
        if read(self.proxy, "State") == "running" and not self.following:
            self.open_log()

    def switch_autostart(self, switch: Gtk.Switch, wanted: bool) -> bool:
        """Have it start with the session, or not. True: that it is so is still to come."""
        switch.activate_action(f"app.{'enable' if wanted else 'disable'}", GLib.Variant("s", self.name))
        return True

    def open_log(self) -> None:
        """Ask for the log: it comes on a pipe, whose reading end is in the answer."""
        self.following = True
        self.buffer.set_text("")
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        options = {"follow": GLib.Variant("b", True), "lines": GLib.Variant("u", LOG_LINES)}
        self.proxy.call_with_unix_fd_list(
            "Logs",
            GLib.Variant("(a{sv})", (options,)),
            Gio.DBusCallFlags.NONE,
            -1,
            None,
            self.cancellable,
            self.on_log_opened,
        )

    def on_log_opened(self, proxy: Gio.DBusProxy, result: Gio.AsyncResult) -> None:
        """The answer's ``h`` is an index into the descriptors that came with it."""
        try:
            answer, descriptors = proxy.call_with_unix_fd_list_finish(result)
        except GLib.Error as error:
            if not error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED):
                self.empty.set_description(explain(error))
            return
        (index,) = answer.unpack()
        self.stream = Gio.UnixInputStream.new(descriptors.get(index), True)
        self.read_more()

    def read_more(self) -> None:
        """Wait for the next bytes."""
        self.stream.read_bytes_async(65536, GLib.PRIORITY_DEFAULT, self.cancellable, self.on_bytes)

    def on_bytes(self, stream: Gio.InputStream, result: Gio.AsyncResult) -> None:
        """Show what has come. Nothing is the end: the container has ended, too, and may start again."""
        try:
            data = stream.read_bytes_finish(result).get_data()
        except GLib.Error:
            data = b""  # the page has been left
        if not data:
            self.following = False
            stream.close_async(GLib.PRIORITY_DEFAULT, None, None)
            return
        self.append(self.decoder.decode(data))
        self.read_more()

    def append(self, text: str) -> None:
        """Add to the end, drop from the beginning what is too much, and stay at the end."""
        self.stack.set_visible_child_name("log")
        self.buffer.insert(self.buffer.get_end_iter(), text)
        surplus = self.buffer.get_line_count() - MAX_LOG_LINES
        if surplus > 0:
            _, end = self.buffer.get_iter_at_line(surplus)
            self.buffer.delete(self.buffer.get_start_iter(), end)
        mark = self.buffer.create_mark(None, self.buffer.get_end_iter(), False)
        self.view.scroll_mark_onscreen(mark)
        self.buffer.delete_mark(mark)


# --- Pulling an image ----------------------------------------------------------------------------------------------


class PullDialog(Adw.Dialog):
    """Asks for a name, then shows the job that the service makes of it."""

    def __init__(
        self, manager: Gio.DBusProxy, objects: Gio.DBusObjectManager, say: Callable[[str], None]
    ) -> None:
        super().__init__(title="Pull an Image", content_width=420)
        self.manager = manager
        self.objects = objects
        self.say = say
        self.job: Gio.DBusProxy | None = None
        self.bars: dict[str, tuple[Adw.ActionRow, Gtk.ProgressBar]] = {}

        self.entry = Adw.EntryRow(title="Image, such as docker.io/library/nginx:1.27")
        self.entry.connect("entry-activated", lambda _entry: self.start())
        self.button = Gtk.Button(
            label="Pull", css_classes=["suggested-action", "pill"], halign=Gtk.Align.CENTER
        )
        self.button.connect("clicked", lambda _button: self.start())
        self.form = Adw.PreferencesGroup()
        self.form.add(self.entry)
        self.error = Gtk.Label(css_classes=["error"], wrap=True, visible=False)

        self.title = Gtk.Label(css_classes=["title-4"], ellipsize=Pango.EllipsizeMode.MIDDLE)
        self.bar = Gtk.ProgressBar()
        self.detail = Gtk.Label(css_classes=["dim-label", "caption", "numeric"], wrap=True)
        self.layers = Gtk.ListBox(selection_mode=Gtk.SelectionMode.NONE, css_classes=["boxed-list"])
        self.cancel = Gtk.Button(label="Cancel", css_classes=["pill"], halign=Gtk.Align.CENTER)
        self.cancel.connect("clicked", lambda _button: self.stop())

        self.pages = Gtk.Stack(vhomogeneous=False, interpolate_size=True)
        self.pages.add_named(make_column(self.form, self.error, self.button), "form")
        self.pages.add_named(make_column(self.title, self.bar, self.detail, self.layers, self.cancel), "job")
        layout = Adw.ToolbarView(content=self.pages)
        layout.add_top_bar(Adw.HeaderBar())
        self.set_child(layout)

    def start(self, reference: str = "") -> None:
        """Have the service pull; its answer is the path of a job."""
        reference = reference or self.entry.get_text().strip()
        if not reference:
            return
        self.entry.set_text(reference)
        self.title.set_label(reference)
        for row, _bar in self.bars.values():
            self.layers.remove(row)
        self.bars.clear()
        self.pages.set_visible_child_name("job")
        self.bar.pulse()
        arguments = GLib.Variant("(sa{sv})", (reference, {}))
        call(self.manager, "Pull", arguments, done=self.on_started, failed=self.on_failed)

    def on_started(self, answer: tuple[str]) -> None:
        """Follow the job. Not by the object manager: it may be getting its objects anew, and then misses one."""
        Gio.DBusProxy.new(
            self.objects.get_connection(),
            Gio.DBusProxyFlags.NONE,
            None,
            NAME,
            answer[0],
            JOB,
            None,
            self.on_job,
        )

    def on_job(self, _source: object, result: Gio.AsyncResult) -> None:
        """Its properties have been read; from now on changes are told."""
        try:
            self.job = Gio.DBusProxy.new_finish(result)
        except GLib.Error as error:
            self.on_failed(explain(error))
            return
        self.job.connect("g-properties-changed", lambda *_: self.update())
        self.update()

    def on_failed(self, message: str) -> None:
        """Back to the form, with the reason."""
        self.job = None
        self.error.set_label(message)
        self.error.set_visible(True)
        self.pages.set_visible_child_name("form")

    def update(self) -> None:
        """Show how far it is: four times a second at most, the service sees to that."""
        state = None if self.job is None else read(self.job, "State")
        if state is None:
            return  # the service is gone, and the window is told of that
        if state == "running":
            self.show_progress()
        elif state in ("done", "cancelled"):
            if state == "done":
                self.say(f"Pulled {read(self.job, 'Target')}")
            self.job = None  # what else is told of it is of no interest
            self.close()
        else:
            self.on_failed(read(self.job, "Message"))

    def show_progress(self) -> None:
        """The bar for all of it, and one for each layer."""
        progress = read(self.job, "Progress")
        if progress < 0:
            self.bar.pulse()
        else:
            self.bar.set_fraction(progress)
        done, total = read(self.job, "BytesDone"), read(self.job, "BytesTotal")
        phase = PHASES.get(read(self.job, "Phase"), "Asking the registry")
        size = f" · {GLib.format_size(done)} of {GLib.format_size(total)}" if total else ""
        self.detail.set_label(phase + size)
        for digest, layer_phase, layer_done, layer_total in read(self.job, "Items"):
            row, bar = self.bars.get(digest) or self.add_layer(digest)
            ready = layer_phase == "unpack" and layer_done == layer_total
            text = "Ready" if ready else PHASES.get(layer_phase, "Waiting")
            row.set_subtitle(f"{text} · {GLib.format_size(layer_total)}")
            bar.set_fraction(layer_done / layer_total if layer_total else 0)
        self.layers.set_visible(bool(self.bars))

    def add_layer(self, digest: str) -> tuple[Adw.ActionRow, Gtk.ProgressBar]:
        """A row for one more layer."""
        row = Adw.ActionRow(title=digest.partition(":")[2][:12], css_classes=["numeric"])
        bar = Gtk.ProgressBar(valign=Gtk.Align.CENTER, width_request=120)
        row.add_suffix(bar)
        self.layers.append(row)
        self.bars[digest] = (row, bar)
        return self.bars[digest]

    def stop(self) -> None:
        """Cancel the job: what has come so far is kept for the next try."""
        if self.job is not None:
            call(self.job, "Cancel", failed=self.on_failed)
        else:
            self.close()


def make_column(*children: Gtk.Widget) -> Gtk.Box:
    """Widgets below each other, with room around them."""
    box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=18)
    for side in ("start", "end", "top", "bottom"):
        box.set_property(f"margin-{side}", 18)
    for child in children:
        box.append(child)
    return box


# --- The window ----------------------------------------------------------------------------------------------------


class Window(Adw.ApplicationWindow):
    """The list, the pages that lead from it, and what there is to say."""

    def __init__(self, application: Adw.Application) -> None:
        super().__init__(application=application, title="Containers", default_width=560, default_height=560)
        self.objects: Gio.DBusObjectManagerClient | None = None
        self.rows: dict[str, ContainerRow] = {}
        self.dialog: PullDialog | None = None

        header = Adw.HeaderBar()
        pull = Gtk.Button(icon_name="folder-download-symbolic", tooltip_text="Pull an image")
        pull.set_action_name("app.pull")
        pull.set_action_target_value(GLib.Variant("s", ""))
        header.pack_start(pull)

        self.banner = Adw.Banner(use_markup=False, button_label="Show")
        self.banner.connect("button-clicked", self.on_banner)
        self.list = Gtk.ListBox(selection_mode=Gtk.SelectionMode.NONE, css_classes=["boxed-list"])
        self.list.set_sort_func(lambda a, b: (a.name > b.name) - (a.name < b.name))
        self.list.set_valign(Gtk.Align.START)
        clamp = Adw.Clamp(child=make_column(self.list), maximum_size=700)

        self.stack = Gtk.Stack(transition_type=Gtk.StackTransitionType.CROSSFADE, vexpand=True)
        self.stack.add_named(Gtk.ScrolledWindow(child=clamp, hscrollbar_policy=Gtk.PolicyType.NEVER), "list")
        self.stack.add_named(self.make_empty_page(), "empty")
        self.stack.add_named(self.make_away_page(), "away")
        self.stack.add_named(Adw.StatusPage(title="Connecting", paintable=Adw.SpinnerPaintable()), "wait")
        self.stack.set_visible_child_name("wait")

        layout = Adw.ToolbarView(content=self.stack)
        layout.add_top_bar(header)
        layout.add_top_bar(self.banner)
        self.pages = Adw.NavigationView()
        self.pages.add(Adw.NavigationPage(title="Containers", child=layout))
        self.toasts = Adw.ToastOverlay(child=self.pages)
        self.set_content(self.toasts)
        self.connect_service()

    def make_empty_page(self) -> Gtk.Widget:
        """What is shown where there is nothing to list."""
        return Adw.StatusPage(
            icon_name="package-x-generic-symbolic",
            title="No Containers",
            description="Define one in ~/.config/usercontainerd/containers, and it appears here.",
        )

    def make_away_page(self) -> Gtk.Widget:
        """What is shown while the service cannot be had."""
        button = Gtk.Button(label="Try Again", css_classes=["pill"], halign=Gtk.Align.CENTER)
        button.set_action_name("app.connect")
        self.away = Adw.StatusPage(
            icon_name="network-offline-symbolic", title="Service Not Available", child=button
        )
        return self.away

    def say(self, text: str) -> None:
        """Tell something in passing."""
        self.toasts.add_toast(Adw.Toast(title=text, use_markup=False, timeout=5))

    # The service

    def connect_service(self) -> None:
        """Get all objects in one call. It starts the service, and makes it stay for as long as we do."""
        Gio.DBusObjectManagerClient.new_for_bus(
            Gio.BusType.SESSION,
            Gio.DBusObjectManagerClientFlags.NONE,
            NAME,
            ROOT,
            None,
            None,
            None,
            self.on_connected,
        )

    def on_connected(self, _source: object, result: Gio.AsyncResult) -> None:
        """From now on GIO tells of objects that come and go and of properties that change."""
        try:
            self.objects = Gio.DBusObjectManagerClient.new_for_bus_finish(result)
        except GLib.Error as error:
            self.show_away(explain(error))
            return
        self.objects.connect("object-added", lambda _objects, each: self.add(each))
        self.objects.connect("object-removed", lambda _objects, each: self.remove(each))
        self.objects.connect("interface-proxy-properties-changed", self.on_properties_changed)
        self.objects.connect("notify::name-owner", lambda *_: self.on_owner_changed())
        self.manager = Gio.DBusProxy.new_sync(
            self.objects.get_connection(),
            Gio.DBusProxyFlags.DO_NOT_LOAD_PROPERTIES | Gio.DBusProxyFlags.DO_NOT_CONNECT_SIGNALS,
            None,
            NAME,
            ROOT,
            MANAGER,
            None,
        )
        for each in self.objects.get_objects():
            self.add(each)
        self.on_owner_changed()

    def on_owner_changed(self) -> None:
        """The service has come or gone. Nothing depends on it: if it was killed, the next call starts it again."""
        if self.objects.get_name_owner():
            self.update()
            return
        if self.dialog is not None and self.dialog.job is not None:
            self.dialog.on_failed("The service has ended, and the pull with it.")
        self.wake_service()

    def wake_service(self) -> None:
        """Call it by its well-known name, which starts it; GIO gets all objects anew once it is there."""

        def finish(bus: Gio.DBusConnection, result: Gio.AsyncResult) -> None:
            try:
                bus.call_finish(result)
            except GLib.Error as error:
                self.show_away(explain(error))

        self.objects.get_connection().call(
            NAME,
            ROOT,
            MANAGER,
            "Subscribe",
            GLib.Variant("(a{sv})", ({},)),
            None,
            Gio.DBusCallFlags.NONE,
            -1,
            None,
            finish,
        )

    def try_again(self) -> None:
        """What the button on the page below does."""
        if self.objects is None:
            self.connect_service()
        else:
            self.wake_service()

    def show_away(self, reason: str) -> None:
        """Say that there is no service, and why."""
        self.away.set_description(reason)
        self.stack.set_visible_child_name("away")
        self.banner.set_revealed(False)

    # The objects

    def add(self, each: Gio.DBusObject) -> None:
        """Show a container; images and jobs come here, too."""
        proxy = each.get_interface(CONTAINER)
        if proxy is not None:
            path = each.get_object_path()
            self.remove(each)
            self.rows[path] = ContainerRow(proxy)
            self.list.append(self.rows[path])
        self.update()

    def remove(self, each: Gio.DBusObject) -> None:
        """A container is gone."""
        row = self.rows.pop(each.get_object_path(), None)
        if row is not None:
            self.list.remove(row)
        self.update()

    def on_properties_changed(
        self, _objects: object, each: Gio.DBusObject, _proxy: object, _changed: object, _gone: object
    ) -> None:
        """A container has changed."""
        row = self.rows.get(each.get_object_path())
        if row is not None:
            row.update()
            self.update()

    def update(self) -> None:
        """What depends on all containers."""
        if self.objects is None or not self.objects.get_name_owner():
            return
        self.stack.set_visible_child_name("list" if self.rows else "empty")
        failed = self.list_failed()
        if failed:
            name, reason = failed[0]
            self.banner.set_title(
                f"{name} failed: {reason}" if len(failed) == 1 else f"{len(failed)} containers failed"
            )
        self.banner.set_revealed(bool(failed))
        page = self.pages.get_visible_page()
        if isinstance(page, ContainerPage):
            page.update()

    def list_failed(self) -> list[tuple[str, str]]:
        """The containers that failed, and why."""
        found = ((row.name, explain_failure(row.proxy)) for row in self.rows.values())
        return sorted((name, reason) for name, reason in found if reason)

    def on_banner(self, _banner: Adw.Banner) -> None:
        """Show the first container that failed."""
        for name, _reason in self.list_failed()[:1]:
            self.show_container(name)

    # What can be done

    def find(self, name: str) -> Gio.DBusProxy | None:
        """The proxy of a container; says so if there is none."""
        for row in self.rows.values():
            if row.name == name:
                return row.proxy
        self.say(f"There is no container “{name}”")
        return None

    def act(self, method: str, name: str) -> None:
        """Start, Stop or Restart a container. How it goes shows in its state; an error is said, too."""
        proxy = self.find(name)
        if proxy is not None:
            call(proxy, method, failed=self.say)

    def set_autostart(self, enabled: bool, name: str) -> None:
        """Have a container start with the session, or not. It shows in its property Autostart."""

        def fail(message: str) -> None:
            self.say(message)
            self.update()  # the switch goes back

        proxy = self.find(name)
        if proxy is not None:
            call(proxy, "SetAutostart", GLib.Variant("(ba{sv})", (enabled, {})), failed=fail)

    def show_container(self, name: str) -> None:
        """Go to the page of a container."""
        proxy = self.find(name)
        if proxy is not None:
            self.pages.pop_to_page(self.pages.get_navigation_stack().get_item(0))
            self.pages.push(ContainerPage(proxy))

    def go_back(self) -> None:
        """From a container's page to the list."""
        self.pages.pop()

    def pull(self, reference: str) -> None:
        """Open the dialog; with a reference the pull begins at once."""
        if self.objects is None:
            return
        if self.dialog is not None:
            self.dialog.job = None
            self.dialog.force_close()
        self.dialog = PullDialog(self.manager, self.objects, self.say)
        self.dialog.present(self)
        if reference:
            self.dialog.start(reference)

    def cancel_pull(self) -> None:
        """What the dialog's Cancel button does."""
        if self.dialog is not None:
            self.dialog.stop()


class Application(Adw.Application):
    """All that a user can do is an action: buttons activate it, and so may other programs."""

    def __init__(self) -> None:
        super().__init__(application_id="org.example.ContainerPanel")
        for name in ACTIONS:
            self.add_text_action(name, lambda target, name=name: self.window.act(name.capitalize(), target))
        for name, enabled in (("enable", True), ("disable", False)):
            self.add_text_action(
                name, lambda target, enabled=enabled: self.window.set_autostart(enabled, target)
            )
        for name, method in (("show", "show_container"), ("pull", "pull")):
            self.add_text_action(name, lambda target, method=method: getattr(self.window, method)(target))
        for name, method in (("cancel-pull", "cancel_pull"), ("back", "go_back"), ("connect", "try_again")):
            self.add_plain_action(name, lambda method=method: getattr(self.window, method)())
        self.add_plain_action("quit", self.quit)
        self.set_accels_for_action("app.quit", ["<Control>q"])
        self.set_accels_for_action("app.pull::", ["<Control>p"])

    def add_text_action(self, name: str, function: Callable[[str], None]) -> None:
        """An action of one string."""
        action = Gio.SimpleAction.new(name, GLib.VariantType.new("s"))
        action.connect("activate", lambda _action, target: function(target.get_string()))
        self.add_action(action)

    def add_plain_action(self, name: str, function: Callable[[], Any]) -> None:
        """An action without parameters."""
        action = Gio.SimpleAction.new(name, None)
        action.connect("activate", lambda _action, _nothing: function())
        self.add_action(action)

    def do_activate(self) -> None:
        """Started, or started once more: show the one window."""
        self.window = self.get_active_window() or Window(self)
        self.window.present()


if __name__ == "__main__":
    sys.exit(Application().run(sys.argv))
