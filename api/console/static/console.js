// Improves the pages. Without this file, all pages can be read and every form works.
import { hashForms } from "./hash.js";
import { refresh } from "./refresh.js";
import { follow } from "./follow.js";

hashForms();
refresh();
follow();
