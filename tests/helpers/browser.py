"""A headless Chromium, driven over the pipe of its DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import time

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')


def find_browser():
    """Path of the browser in KD_EXT_BROWSER or on PATH; None without one."""
    given = os.environ.get('KD_EXT_BROWSER')
    return given or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """Context with one page open.

    Attributes:
        complaints: Texts of console messages that are warnings or errors, of exceptions and of failed requests.
    """

    def __init__(self, profile):
        self.complaints, self._count = [], 0
        there, self._in = os.pipe()
        self._out, back = os.pipe()

        def pipes():
            # Chromium reads from 3 and writes to 4
            copies = os.dup(there), os.dup(back)
            os.dup2(copies[0], 3)
            os.dup2(copies[1], 4)

        options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run']
        self._process = subprocess.Popen(
            [find_browser(), *options, f'--user-data-dir={profile}', '--remote-debugging-pipe', 'about:blank'],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._buffer = b''
        self._session = None
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self._session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.send(f'{domain}.enable')

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _read(self):
        while b'\0' not in self._buffer:
            part = os.read(self._out, 1 << 16)
            if not part:
                raise RuntimeError('the browser has ended')
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b'\0')
        message = json.loads(line)
        method, params = message.get('method'), message.get('params', {})
        if method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert'):
            self.complaints.append(str([one.get('value') for one in params['args']]))
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(params['exceptionDetails']['text'])
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.complaints.append(params['entry']['text'])
        elif method == 'Network.loadingFailed':
            self.complaints.append(params['errorText'])
        return message

    def send(self, method, **params):
        """Calls a method of the protocol: its result."""
        self._count += 1
        message = dict(id=self._count, method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._in, data) :]
        while True:
            answer = self._read()
            if answer.get('id') == self._count:
                assert 'error' not in answer, answer
                return answer['result']

    def show(self, path, width=1280, height=900, dark=False):
        """Loads a file in a window of this size."""
        scheme = [dict(name='prefers-color-scheme', value='dark' if dark else 'light')]
        self.send('Emulation.setEmulatedMedia', features=scheme)
        self.send(
            'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send('Page.navigate', url=path.resolve().as_uri())
        end = time.monotonic() + 60
        while self.run('document.readyState') != 'complete' or self.run('location.href') == 'about:blank':
            assert time.monotonic() < end
            time.sleep(0.05)

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.send('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def screenshot(self, path, whole=True):
        """Writes a PNG of the whole page, or of the window."""
        data = self.send('Page.captureScreenshot', captureBeyondViewport=whole)['data']
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path):
        """Prints the page."""
        data = self.send('Page.printToPDF', printBackground=False, preferCSSPageSize=True)['data']
        path.write_bytes(base64.b64decode(data))
