"""Exim, a mail transfer agent, in a host of the lab, with the least that one is told.

Mail for the host's own domain goes into a folder; all other mail goes where the MX records of its domain say (RFC 5321
s5.1), over SMTP in clear: nobody offers STARTTLS.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hushwire.lab.daemon import Daemon
from hushwire.lab.namespaces import Host
from hushwire.lab.stage import WITH_RESOLVER

USER = "Debian-exim"


class Exim(Daemon):
    """Asks `name_server` for names."""

    # Here files belong to who makes them: on the file system of a User-Mode Linux all belong to who runs that.
    parent_folder = "/dev/shm"

    def __init__(self, host: Host, name_server: str) -> None:
        super().__init__(host)
        self.domain = f"{host.name}.example"
        self._name_server = name_server

    @property
    def log(self) -> Path:
        """Of what became of mail."""
        return self.folder / "mainlog"

    def prepare(self) -> Sequence[str]:
        self._inbox.mkdir()
        self._conf.write_text(CONF.format(folder=self.folder, inbox=self._inbox, domain=self.domain))
        self._resolver.write_text(f"nameserver {self._name_server}\n")
        for path in (self.folder, self._inbox):
            shutil.chown(path, USER, USER)
        return self._exim("-bdf", "-q1s")

    def is_ready(self) -> bool:
        return bool(self.host.run("ss", "-Hltn", "sport", "=", "25").stdout)

    def send(self, to: str, subject: str, body: str) -> None:
        """As somebody on the host does.  It is taken, and delivered by and by."""
        text = f"From: somebody@{self.domain}\nTo: {to}\nSubject: {subject}\n\n{body}\n"
        command = (*self.host.prefix, *self._exim("-odb", to))
        subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=True)

    def mail(self) -> list[str]:
        """What has come for people on the host."""
        return [file.read_text() for file in self._inbox.glob("new/*")]

    @property
    def _conf(self) -> Path:
        return self.folder / "exim.conf"

    @property
    def _resolver(self) -> Path:
        return self.folder / "resolv.conf"

    @property
    def _inbox(self) -> Path:
        return self.folder / "inbox"

    def _exim(self, *words: str) -> tuple[str, ...]:
        return "sh", "-c", WITH_RESOLVER, str(self._resolver), "exim", "-C", str(self._conf), *words


CONF = """
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
# With a configuration that is not Debian's, Exim never becomes root again (-C); so nor does a delivery.
deliver_drop_privilege
primary_hostname = {domain}
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
daemon_smtp_ports = 25
acl_smtp_rcpt = check

begin acl
check:
  accept domains = {domain}
  deny

begin routers
here:
  driver = accept
  domains = {domain}
  transport = inbox
elsewhere:
  driver = dnslookup
  transport = smtp
  no_more

begin transports
inbox:
  driver = appendfile
  directory = {inbox}
  maildir_format
smtp:
  driver = smtp
  hosts_try_fastopen =

begin retry
* * F,1m,1s
"""
