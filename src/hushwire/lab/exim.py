"""Exim, a mail transfer agent, in a host of the lab, with the least that one is told.

Mail for the host's own domain goes into a folder; all other mail goes where the MX records of its domain say (RFC 5321
s5.1), over SMTP in clear: nobody offers STARTTLS.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from hushwire.lab.namespaces import Host, end
from hushwire.lab.peer import eventually
from hushwire.lab.stage import WITH_RESOLVER

USER = "Debian-exim"


class Exim:
    """A context manager: inside it the agent runs, and asks `name_server` for names."""

    def __init__(self, host: Host, name_server: str) -> None:
        self.host = host
        self.domain = f"{host.name}.example"
        self._name_server = name_server
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # Here files belong to who makes them: on the file system of a User-Mode Linux all belong to who runs that.
        self._folder = Path(tempfile.mkdtemp(prefix=f"hushwire-exim-{self.host.name}-", dir="/dev/shm"))
        self._conf, self._resolver = self._folder / "exim.conf", self._folder / "resolv.conf"
        self._inbox = self._folder / "inbox"
        self._inbox.mkdir()
        self._conf.write_text(CONF.format(folder=self._folder, inbox=self._inbox, domain=self.domain))
        self._resolver.write_text(f"nameserver {self._name_server}\n")
        for path in (self._folder, self._inbox):
            shutil.chown(path, USER, USER)
        with (self._folder / "said").open("w") as said:
            self._process = self.host.start(*self._exim("-bdf", "-q1s"), stdout=said, stderr=said)
        if not eventually(lambda: self.host.run("ss", "-Hltn", "sport", "=", "25").stdout):
            log = self.log()
            self.__exit__()
            raise RuntimeError(f"exim on {self.host.name} does not answer: {log}")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            end(self._process)
        shutil.rmtree(self._folder)

    def log(self) -> str:
        """What it says."""
        return "".join(file.read_text() for name in ("said", "mainlog") if (file := self._folder / name).exists())

    def send(self, to: str, subject: str, body: str) -> None:
        """As somebody on the host does.  It is taken, and delivered by and by."""
        text = f"From: somebody@{self.domain}\nTo: {to}\nSubject: {subject}\n\n{body}\n"
        command = (*self.host.prefix, *self._exim("-odb", to))
        subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=True)

    def mail(self) -> list[str]:
        """What has come for people on the host."""
        return [file.read_text() for file in self._inbox.glob("new/*")]

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
