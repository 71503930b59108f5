import { connect } from 'autoflow-db-toolkit-pro';

console.log(connect('memory://'));
