console.log(require('phantomjs-prebuilt').path);
