// reveal.js calls the deck an application, in which readers of screens do not look for the main part of a page, and
// leaves the number of the slide outside that part.
Reveal.on('ready', () => {
    Reveal.getSlidesElement().removeAttribute('role');
    Reveal.getRevealElement().setAttribute('role', 'main');
});
