// Improves the pages: without this file all of them can be read, and every form works.
import { hashForms } from "./hash.js";
import { refresh } from "./refresh.js";
import { follow } from "./follow.js";

hashForms();
refresh();
follow();
