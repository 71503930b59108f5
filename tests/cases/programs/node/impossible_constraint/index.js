console.log(require('react').version);
