// The code of a link stands behind its `#`, which no browser sends: here it goes into the form, and out of the bar.
const code = decodeURIComponent(location.hash.slice(1));
if (code) {
  document.getElementById('code').value = code;
  history.replaceState(null, '', location.pathname);
  document.querySelector('input[type=password]').focus();
}
