// reveal.js calls the deck an application, in which readers of screens do not look for the main part of a page.
Reveal.on('ready', () => Reveal.getRevealElement().removeAttribute('role'));
