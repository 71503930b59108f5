// Lets every Node program of the sandbox find the packages that Qila installed; each start and each worker loads it.
//
// The environment is the directory that QILA_NODE_ENV names (an empty value: none), else the one that
// /sandbox/.qila/current/node links to. A real node_modules directory above the importing file wins for what it has;
// the link /sandbox/node_modules, which is there for people and tools, counts as the environment itself. Files are found
// by their real path, so that a package is loaded once, whichever way led to it.
'use strict';

// Every start of Node pays for what is loaded here.
const fs = require('node:fs');
const { createRequire, isBuiltin, registerHooks } = require('node:module');

const CURRENT_ENVIRONMENT = '/sandbox/.qila/current/node';
// A package's name at the beginning of a specifier; what is relative, absolute, a URL or an import map's begins otherwise.
const PACKAGE = /^(?:@[^/\\%:]+\/)?[^./\\%:#@][^/\\%:]*(?=\/|$)/;

function environmentDirectory() {
  const chosen = process.env.QILA_NODE_ENV ?? CURRENT_ENVIRONMENT;
  try {
    return chosen && fs.realpathSync(chosen);
  } catch {
    return '';
  }
}

// What Node's permission model keeps a program from is not there for it.
function isDirectory(path) {
  try {
    return fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch {
    return false;
  }
}

// Whether a directory of modules above a directory has the package and is no link.
function isOwned(directory, name) {
  for (let at = directory; ; at = at.slice(0, at.lastIndexOf('/'))) {
    const modules = `${at}/node_modules`;
    if (isDirectory(modules) && fs.existsSync(`${modules}/${name}`)) return true;
    if (!at) return false;
  }
}

function directoryOf(parentURL) {
  // An option's own module, and what has no file.
  if (parentURL === undefined) return process.cwd();
  if (!parentURL.startsWith('file:///')) return null;
  try {
    const path = decodeURIComponent(new URL(parentURL).pathname);
    return path.slice(0, path.lastIndexOf('/'));
  } catch {
    return null;
  }
}

function register(environment) {
  const modules = `${environment}/node_modules`;
  const inside = `${modules}/`;
  const parentURL = `file://${environment}/package.json`;
  let requireThere;

  // `require` resolves from the file that calls it, whatever parent the next hook is told.
  function resolveRequired(specifier) {
    requireThere ??= createRequire(parentURL);
    const path = requireThere.resolve(specifier);
    return isBuiltin(path) ? path : `file://${encodeURI(path).replace(/[?#]/g, encodeURIComponent)}`;
  }

  registerHooks({
    resolve(specifier, context, nextResolve) {
      const name = PACKAGE.exec(specifier)?.[0];
      if (name === undefined || isBuiltin(specifier)) return nextResolve(specifier, context);
      const directory = directoryOf(context.parentURL);
      if (directory === null || `${directory}/`.startsWith(inside) || directory === environment) {
        return nextResolve(specifier, context);
      }
      if (!fs.existsSync(inside + name) || isOwned(directory, name)) return nextResolve(specifier, context);
      if (context.conditions.includes('require')) {
        return { url: resolveRequired(specifier), shortCircuit: true };
      }
      return nextResolve(specifier, { ...context, parentURL });
    },
  });
}

const environment = environmentDirectory();
if (environment) register(environment);
